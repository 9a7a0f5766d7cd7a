"""One guest by hand, to look at a kind of host or to reproduce a fault.

python3 scripts/hosts/single.py boot NAME [KIND] [--memory MIB] [--append WORDS]   boot a fresh one, print its ssh
python3 scripts/hosts/single.py start|cut|stop NAME                                power on again, cut, cut and delete
python3 scripts/hosts/single.py run NAME SCRIPT                                    run a script as root
python3 scripts/hosts/single.py put NAME SOURCE FOLDER                             copy a file or a folder's content
python3 scripts/hosts/single.py link NAME on|off
"""

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hosts.guest import Guest
from hosts.images import BUILD, image_of
from hosts.kinds import KINDS


def main() -> int:
    """Do one thing to one guest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("boot", "start", "cut", "stop", "run", "put", "link", "ssh"))
    parser.add_argument("name")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--memory", type=int, default=2048)
    parser.add_argument("--append", default="")
    chosen = parser.parse_args()
    guest = Guest(chosen.name, BUILD / "single" / chosen.name)
    match chosen.action:
        case "boot":
            kind = chosen.words[0] if chosen.words else "debian12-6.1"
            guest.create(image_of(KINDS[kind]), append=chosen.append, memory_mib=chosen.memory)
            guest.start()
        case "start":
            guest.start()
        case "cut":
            guest.power_cut()
        case "stop":
            guest.remove()
        case "run":
            done = guest.run(" ".join(chosen.words), timeout_s=1800)
            sys.stdout.write(done.out)
            sys.stderr.write(done.err)
            return done.code
        case "put":
            guest.put(Path(chosen.words[0]), chosen.words[1])
        case "link":
            guest.link(up=chosen.words == ["on"])
    if chosen.action in ("boot", "start", "ssh"):
        print(shlex.join(guest.ssh_command()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

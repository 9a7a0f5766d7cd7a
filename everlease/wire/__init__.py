"""What goes over wires: messages between node and gateway, and the bodies of the HTTP API."""

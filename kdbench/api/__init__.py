"""What a script or a notebook imports; ``kdbench`` itself offers it by name, loaded when it is first asked for."""

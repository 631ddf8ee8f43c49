"""The commands, a module each: its docstring is the line of help, ``run`` parses, calls one function and prints."""

"""The revisioned log: protocol and its backends. Knows keys and bytes, never the meaning of an object."""

"""The schema, file by file. See README.md here before you add one."""

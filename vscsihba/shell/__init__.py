"""The shell: disks as a tree, in the manner of targetcli."""

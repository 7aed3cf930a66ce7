"""Commands of disks as they are seen from outside of their engines: live, in capture files, and sent again.

`feed` reads the traces of engines, `filters` and `lines` choose and show commands, `packets` writes them as
captures that Wireshark decodes, `saved` reads these, and `replay` sends the commands of one to a device.
Knows how engines are reached, not how they serve.
"""

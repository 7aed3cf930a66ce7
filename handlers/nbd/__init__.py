"""nbd: a disk of a server in the network, over the protocol of network block devices."""

"""The benchmarks that need a kernel: disks of ours and of others, side by side in one boot of a VM."""

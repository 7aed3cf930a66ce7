"""Owning LUNs: which engine of an HBA serves which LUN; how LUNs are created, opened and handed over.

All of it runs on threads that may block: those of the control socket, the balancer's, and short-lived ones
that open or close a LUN. It reaches the pump's thread by its call queue only (`serving.call_queue`).
"""

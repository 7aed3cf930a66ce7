"""Owning LUNs: which engine of an HBA serves which LUN, and how a LUN is opened, handed over and removed.

Everything here runs on threads that may block: those of the control socket, the balancer's, and short-lived
ones that open or close a LUN. Calls go to the pump's thread by its queue only (`serving.call_queue`).
"""

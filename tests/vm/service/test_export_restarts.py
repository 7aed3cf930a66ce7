"""Exports that a restarted service finds gone, as after a start of the machine."""

from pathlib import Path

from tests.vm.daemon import Service
from tests.vm.exported import HOST, document, remove_by_hand


def test_a_restarted_service_makes_its_exports_again(own_service: Service, scratch: Path) -> None:
    wanted = document(scratch, "a", "b", initiators=[{"name": HOST}])
    wanted["hbas"][0]["luns"][1]["local"] = False
    own_service.ask("apply", document=wanted)
    own_service.kill()
    for step in ("luns", "whole"):
        remove_by_hand(whole=step == "whole")
        own_service.start()
        (shown,) = own_service.ask("status")["exports"]
        assert (shown["state"], {lun["state"] for lun in shown["luns"]}) == ("running", {"running"}), step
        assert own_service.changes("plan", wanted) == []
        own_service.kill()

"""SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS: self-tests, and the page Supported Diagnostic Pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vscsihba.scsi import self_test
from vscsihba.scsi.asc import Asc
from vscsihba.scsi.response import GOOD, Response, Steps, data_in, quietly
from vscsihba.scsi.self_test import SelfTest, SelfTestCode, SelfTestResult
from vscsihba.scsi.sense import CheckCondition, Sense, SenseKey, illegal_request, invalid_parameter

if TYPE_CHECKING:
    from vscsihba.block import Buffer
    from vscsihba.scsi.cdb import Cdb
    from vscsihba.scsi.logical_unit import LogicalUnit
    from vscsihba.scsi.response import Background

SUPPORTED_DIAGNOSTIC_PAGES = bytes([0x00, 0x00, 0x00, 0x01, 0x00])
"""The page Supported Diagnostic Pages: page code 00h, and a list of that code alone."""


def send_diagnostic(lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response | Steps:
    """SEND DIAGNOSTIC: SPC-5; the default self-test, foreground and background self-tests."""
    code = cdb["self_test_code"]
    length = cdb["parameter_list_length"]
    if code not in list(SelfTestCode) or (code and cdb["selftest"]):
        raise cdb.invalid("self_test_code")
    if length:
        if code or cdb["selftest"]:
            raise cdb.invalid("parameter_list_length")
        return _accept_page(cdb, buffer)
    if cdb["selftest"]:
        return _foreground(lu, SelfTestCode.DEFAULT)
    match SelfTestCode(code):
        case SelfTestCode.DEFAULT:
            return GOOD
        case SelfTestCode.ABORT_BACKGROUND:
            return _abort(lu, cdb)
        case SelfTestCode.FOREGROUND_SHORT | SelfTestCode.FOREGROUND_EXTENDED as chosen:
            return _foreground(lu, chosen)
        case chosen:
            return _background(lu, chosen)


def _accept_page(cdb: Cdb, buffer: Buffer) -> Response:
    """Accept the one supported diagnostic page, which has no contents."""
    length = cdb["parameter_list_length"]
    if length < 4 or buffer.length < length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    page = buffer.gather(0, 4)
    for byte in (0, 2, 3):
        if page[byte]:
            raise invalid_parameter(byte)
    return GOOD


def _begin(lu: LogicalUnit, code: SelfTestCode) -> Background:
    test = SelfTest(code, lu.timestamp.hours())
    if code is not SelfTestCode.DEFAULT:
        lu.self_tests.appendleft(test)
    extended = code in (SelfTestCode.BACKGROUND_EXTENDED, SelfTestCode.FOREGROUND_EXTENDED)
    return self_test.run(lu, test, extended=extended)


def _foreground(lu: LogicalUnit, code: SelfTestCode) -> Steps:
    """Run a test before the status."""
    try:
        yield from _begin(lu, code)
    except CheckCondition as condition:
        failed = Sense(SenseKey.HARDWARE_ERROR, Asc.LOGICAL_UNIT_FAILED_SELF_TEST)
        raise CheckCondition(failed) from condition
    return GOOD


def _background(lu: LogicalUnit, code: SelfTestCode) -> Response:
    """Run a test after the status, unless one runs already."""
    if any(test.outcome is SelfTestResult.RUNNING for test in lu.self_tests):
        raise CheckCondition(Sense(SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_SELF_TEST_IN_PROGRESS))
    return Response(background=quietly(_begin(lu, code)))


def _abort(lu: LogicalUnit, cdb: Cdb) -> Response:
    if not self_test.abort(lu.self_tests, SelfTestResult.ABORTED):
        raise cdb.invalid("self_test_code")
    return GOOD


def receive_diagnostic_results(_lu: LogicalUnit, cdb: Cdb, buffer: Buffer) -> Response:
    """RECEIVE DIAGNOSTIC RESULTS: SPC-5."""
    if cdb["pcv"] and cdb["page_code"]:
        raise cdb.invalid("page_code")
    return data_in(buffer, SUPPORTED_DIAGNOSTIC_PAGES, cdb["allocation_length"])

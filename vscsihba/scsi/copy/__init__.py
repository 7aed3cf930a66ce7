"""Third-party copies (SPC-5, SBC-4): EXTENDED COPY, and copies by ROD token.

The functions run on the pump's thread, which serves the rings. They yield operations of
`vscsihba.block`, also for other units of the same HBA; they do no I/O themselves.
Other units are known only through `LogicalUnit.hba_units`, which the engine sets.
"""

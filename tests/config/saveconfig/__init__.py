"""Tests of the conversion of LIO's file; the files beside them were written by Debian's targetcli."""

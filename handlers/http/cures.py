"""Cures for failures of libcurl and for statuses of servers. Knows no request."""

from typing import Any

_NO_HTTP = 'check the port; if it is that of an https server, begin the URL with "https://"'


def curl_failures(curl: Any) -> dict[int, tuple[bool, str | None]]:
    """Return properties of libcurl's errors: whether another try would meet it as well, and the cure.

    Args:
        curl: The module ``pycurl``.
    """
    return {
        curl.E_COULDNT_RESOLVE_HOST: (False, "correct the host in the URL, or check the DNS of this machine"),
        curl.E_COULDNT_RESOLVE_PROXY: (False, 'correct "proxy", or https_proxy in the environment'),
        curl.E_COULDNT_CONNECT: (
            False,
            "start the server, or correct host and port in the URL, or the proxy",
        ),
        curl.E_OPERATION_TIMEDOUT: (False, "check host and port in the URL, and the network"),
        curl.E_GOT_NOTHING: (False, "check that an HTTP server listens there"),
        curl.E_SSL_CONNECT_ERROR: (False, 'if the server does not use TLS, begin the URL with "http://"'),
        curl.E_UNSUPPORTED_PROTOCOL: (True, _NO_HTTP),  # HTTP/0.9: garbage
        curl.E_URL_MALFORMAT: (True, "correct the URL"),
        curl.E_FTP_WEIRD_SERVER_REPLY: (True, _NO_HTTP),
        curl.E_SSL_CERTPROBLEM: (True, "check the client certificate and its key"),
        curl.E_SSL_CACERT_BADFILE: (True, "check the CA certificates"),
        curl.E_PEER_FAILED_VERIFICATION: (True, 'if the server is the right one, name its CA in "ca_file"'),
    }


def cure_of_status(status: int, url: str) -> str | None:
    """Return the cure for a response with a status that is an error, None if none is known."""
    cures = {
        400: _NO_HTTP if url.startswith("http:") else None,
        401: 'name a file with user:password in "credentials_file"; if there is one, correct it',
        403: 'allow it on the server, or name a file with user:password in "credentials_file"',
        404: "check the URL",
        407: "set the proxy's user and password in the environment (https_proxy)",
        410: "check the URL",
    }
    return cures.get(status)

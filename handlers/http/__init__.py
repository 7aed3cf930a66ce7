"""http: a file of an HTTP server as a disk that is only read, through libcurl.

`handler` has the verbs, `opening` what is found out about the file first, `validator` which version of it the
disk shows. `transfers` runs the requests on a thread of the disk's own, `fetch` is one range under way,
`attempt` one request for it, `head` the header of its response, `location` where the file is, `easy` the
settings of libcurl, and `read_ahead` fetches what sequential reads ask for next.
"""

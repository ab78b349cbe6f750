"""The demonstration: classify a directory's files with Magika on a stranger's peer.

An application like any other: it imports the SDK (and the error types that the
SDK raises), starts peers through the command line, and knows nothing of what is
below.
"""

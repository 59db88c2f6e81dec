"""Failures of the store as callers see them."""

from polder.apiserver.failures import status_of
from polder.store.protocol import StoreFailedError, StoreUnknownError, TooLargeError


def test_a_caller_learns_what_may_have_been_done_and_nothing_of_the_inside():
    secret = "etcd at 10.1.2.3:2379"
    told = {
        ("create", StoreFailedError(secret)): (500, "InternalError", "the store cannot write"),
        ("get", StoreFailedError(secret)): (500, "InternalError", "the store does not answer"),
        ("patch", StoreUnknownError(secret)): (504, "Timeout", "may have been done, or not"),
        ("create", TooLargeError(secret)): (413, "RequestEntityTooLarge", "of this size"),
    }
    for (verb, failed), (code, reason, words) in told.items():
        status = status_of(failed, verb).to_status()
        assert (status["code"], status["reason"]) == (code, reason)
        assert words in status["message"]
        assert secret not in str(status)

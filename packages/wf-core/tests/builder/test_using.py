"""A builder is taken wherever a document is."""

from __future__ import annotations

import json

from wf_core import Client, workflow
from wf_core.client.flows import Delivery, Operations


def test_clients_send_the_document_that_was_built():
    """To submit, to run and to validate."""
    with workflow("w") as wf:
        wf.task("core.noop")
    operations = Operations(Delivery())
    for flow in (operations.submit(wf), operations.run(wf)):
        assert json.loads(next(flow).body)["workflow"] == wf.to_dict()
    assert json.loads(next(operations.validate(wf)).body) == wf.to_dict()
    assert callable(Client.run)

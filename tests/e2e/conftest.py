"""For all end-to-end tests: where a service keeps its data, and a service for those that ask for nothing special."""

import pytest
from service import Service


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def service(data_dir):
    with Service(data_dir) as running:
        yield running

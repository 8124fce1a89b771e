"""What is asked of a publisher: credentials, refusals, redirects."""

import base64
from collections.abc import Callable

import httpx
import pytest

from cluster.settings import Kaggle, SettingsError
from data.downloads.download import Fetched
from data.downloads.publisher import DownloadError, check_status
from data.sources.dataset_card import Download
from tests.data.downloads.publishers import BODY, PAGE, Publisher, refusal

SOMEBODY = Kaggle(username="somebody", key="s3cret")


@pytest.mark.parametrize(
    ("status", "part"),
    [
        (401, "refuses the credentials"),
        (403, "accept the conditions of use"),
        (404, "no such file any more"),
        (400, "answers 400"),
    ],
)
def test_a_refusal_says_what_a_person_must_do(
    get: Callable[..., Fetched], publisher: Publisher, status: int, part: str
) -> None:
    publisher.statuses = [(status, {})]
    message = refusal(get, access="kaggle", kaggle=SOMEBODY)
    assert part in message
    assert status == 401 or PAGE in message
    assert len(publisher.asked) == 1


def test_an_encrypted_address_that_leads_to_an_open_one_is_not_followed() -> None:
    answer = httpx.Response(200, request=httpx.Request("GET", "http://example.org/set.zip"))
    with pytest.raises(DownloadError, match="without encryption"):
        check_status(
            Download(url="https://example.org/x", page=PAGE, file_name="x.zip", access="open"), answer
        )


def test_kaggle_without_credentials_asks_for_them_before_anything_is_sent(
    get: Callable[..., Fetched], publisher: Publisher
) -> None:
    assert "set KAGGLE_USERNAME and KAGGLE_KEY" in refusal(get, access="kaggle")
    assert publisher.asked == []


@pytest.mark.parametrize(
    ("who", "header"),
    [
        (SOMEBODY, f"Basic {base64.b64encode(b'somebody:s3cret').decode()}"),
        (Kaggle(username="somebody", key="s3cret", token="KGAT_1"), "Bearer KGAT_1"),
    ],
)
def test_credentials_go_to_the_publisher_and_not_where_it_leads(
    get: Callable[..., Fetched], publisher: Publisher, address: str, who: Kaggle, header: str
) -> None:
    elsewhere = address.replace("127.0.0.1", "localhost")
    publisher.statuses = [(302, {"Location": elsewhere})]
    publisher.break_after = [400_000]
    assert get(access="kaggle", kaggle=who).path.read_bytes() == BODY
    assert [asked.get("Authorization") for asked in publisher.asked] == [header, None, header]
    assert "s3cret" not in repr(who)


def test_credentials_are_read_from_the_environment_and_half_of_them_is_a_mistake() -> None:
    assert Kaggle.from_env({}) is None
    assert Kaggle.from_env({"KAGGLE_USERNAME": "a", "KAGGLE_KEY": "b"}) == Kaggle(username="a", key="b")
    assert Kaggle.from_env({"KAGGLE_API_TOKEN": "t"}) == Kaggle(token="t")
    with pytest.raises(SettingsError, match="not set: KAGGLE_KEY"):
        Kaggle.from_env({"KAGGLE_USERNAME": "a"})

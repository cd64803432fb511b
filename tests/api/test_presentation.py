import msgspec

from api.presentation import payment_body, url_to_pay
from indexer.core.creation import solana_pay_url
from indexer.core.events import format_time
from indexer.core.payment import Asset, Payment, Terms
from indexer.core.types import ChargeState
from indexer.core.verdict import Sighting
from store.cards import CardRecord
from store.payments import Record
from tests.api.running import NOW, verdict_of
from tests.cards import make_card_payment, make_charge, make_order
from tests.instructions import ata, key, signature


def payment(decimals: int = 6) -> Payment:
    mint = key("usdc")
    terms = Terms(
        id="pay_" + "0" * 26,
        asset=Asset(symbol="USDC", mint=mint, decimals=decimals, token_program=key("program")),
        recipient=key("shop"),
        token_account=ata(key("shop"), mint),
        amount=2**64 - 1,
        reference=key("reference"),
        watch_key=key("watch"),
        created_at=NOW,
        expires_at=NOW + 900,
        grace_s=60,
    )
    return Payment(terms=terms, order_id=None, metadata={})


def test_what_a_merchant_did_not_set_is_null_and_not_left_out() -> None:
    private = msgspec.to_builtins(payment_body(Record(payment()), private=True))
    public = msgspec.to_builtins(payment_body(Record(payment()), private=False))

    assert (private["order_id"], private["metadata"]) == (None, {})
    assert private.keys() - public.keys() == {"order_id", "metadata"}


def test_the_largest_amount_is_exact() -> None:
    body = payment_body(Record(payment()), private=False)

    assert body.amount == "18446744073709.551615"
    assert body.amount_base_units == "18446744073709551615"


def test_transfers_are_in_the_chains_order_and_credit_something() -> None:
    asked = payment()
    record = Record(
        asked,
        verdicts=(
            verdict_of(asked, 5, name="late", slot=30),
            verdict_of(asked, 0, name="nothing", slot=20),
            verdict_of(asked, 7, name="early", slot=10),
        ),
        sightings=(
            Sighting(payment_id=asked.terms.id, signature=signature("seen"), slot=40, credit=9),
            Sighting(payment_id=asked.terms.id, signature=signature("late"), slot=30, credit=5),
            Sighting(payment_id=asked.terms.id, signature=signature("nothing"), slot=20, credit=1),
        ),
    )

    transfers = payment_body(record, private=False).transfers

    assert [(t.signature, t.amount_base_units, t.commitment) for t in transfers] == [
        (signature("early"), "7", "finalized"),
        (signature("late"), "5", "finalized"),
        (signature("seen"), "9", "confirmed"),
    ]
    assert transfers[2].block_time is None


def test_a_payment_by_card_has_a_page_and_charges_and_nothing_of_the_chain() -> None:
    asked = make_card_payment(metadata={"table": "7"}, order_id="1042")
    charges = (make_charge(7, refunded=1_050), make_charge(9, ChargeState.DECLINED))
    record = CardRecord(asked, (make_order(asked),), charges)

    private = msgspec.to_builtins(payment_body(record, private=True))
    public = msgspec.to_builtins(payment_body(record, private=False))

    nothing = ("recipient", "reference", "url", "memo")
    assert {private[name] for name in nothing} == {None}
    assert (private["transfers"], private["provider"]) == ([], "paymob")
    assert private["checkout_url"] == public["checkout_url"] == make_order(asked).checkout_url
    assert private.keys() - public.keys() == {"order_id", "metadata", "charges"}
    assert private["charges"] == [
        {
            "id": "7",
            "state": "paid",
            "amount": "50",
            "amount_base_units": "5000",
            "refunded": "10.5",
            "paid_at": format_time(NOW + 60),
        },
        {
            "id": "9",
            "state": "declined",
            "amount": "50",
            "amount_base_units": "5000",
            "refunded": "0",
            "paid_at": None,
        },
    ]


def test_what_a_code_shows_is_where_the_payer_goes() -> None:
    asked = make_card_payment()

    assert url_to_pay(Record(payment())) == solana_pay_url(payment())
    assert url_to_pay(CardRecord(asked, (make_order(asked),))) == make_order(asked).checkout_url
    assert url_to_pay(CardRecord(asked)) is None

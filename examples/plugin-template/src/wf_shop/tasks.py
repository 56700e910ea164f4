"""Tasks of the shop. The entry point's name in pyproject.toml is the task's name in documents."""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, Field

from wf_core import Fatal, TaskContext, task

_RATES = {"EUR": Decimal(1), "USD": Decimal("1.08"), "CHF": Decimal("0.96")}


class Order(BaseModel):
    """What a customer ordered; unit prices in euros."""

    sku: str = Field(min_length=1)
    quantity: int = Field(gt=0)
    unit_price: Decimal = Field(ge=0)


class Price(BaseModel):
    """What it costs. `reference` is the same in every attempt: use it as the key of your own writes."""

    total: Decimal
    currency: str
    reference: str


@task("shop.price", timeout="30s")
async def price(ctx: TaskContext, order: Order, currency: str = "EUR") -> Price:
    """The price of an order in `currency`."""
    rate = _RATES.get(currency)
    if rate is None:
        raise Fatal(f"no rate for {currency!r}; known: {', '.join(_RATES)}")
    total = (order.unit_price * order.quantity * rate).quantize(Decimal("0.01"))
    ctx.log.info("priced", sku=order.sku, total=str(total))
    return Price(total=total, currency=currency, reference=ctx.idempotency_key)

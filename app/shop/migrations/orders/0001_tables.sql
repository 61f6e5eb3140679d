-- Stock stands with the orders, not with the catalogue: both change in one transaction.
CREATE TABLE IF NOT EXISTS stock (
    product_id bigint PRIMARY KEY,
    available  integer NOT NULL CHECK (available >= 0)
);

CREATE TABLE IF NOT EXISTS cart_items (
    user_id    bigint NOT NULL,
    product_id bigint NOT NULL,
    quantity   integer NOT NULL CHECK (quantity BETWEEN 1 AND 99),
    added_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, product_id)
);

-- The application makes the ids (time-ordered, unique for a user): no sequence has to follow
-- when rows move to another database.
CREATE TABLE IF NOT EXISTS orders (
    user_id         bigint NOT NULL,
    id              bigint NOT NULL,
    idempotency_key text NOT NULL,
    total_cents     bigint NOT NULL CHECK (total_cents > 0),
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, id)
);
CREATE UNIQUE INDEX IF NOT EXISTS orders_idempotency ON orders (user_id, idempotency_key);

-- Name and price as they were when it was ordered.
CREATE TABLE IF NOT EXISTS order_items (
    user_id     bigint NOT NULL,
    order_id    bigint NOT NULL,
    product_id  bigint NOT NULL,
    name        text NOT NULL,
    price_cents integer NOT NULL,
    quantity    integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (user_id, order_id, product_id),
    FOREIGN KEY (user_id, order_id) REFERENCES orders (user_id, id)
);

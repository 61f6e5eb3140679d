CREATE TABLE IF NOT EXISTS products (
    id          bigint PRIMARY KEY,
    slug        text NOT NULL,
    name        text NOT NULL,
    category    text NOT NULL,
    summary     text NOT NULL,
    description text NOT NULL,
    price_cents integer NOT NULL CHECK (price_cents > 0),
    picture     text NOT NULL,
    active      boolean NOT NULL DEFAULT true
);
CREATE UNIQUE INDEX IF NOT EXISTS products_slug ON products (slug);

-- One review a user and product. The author's name is a copy: users may live elsewhere.
CREATE TABLE IF NOT EXISTS reviews (
    product_id bigint NOT NULL,
    user_id    bigint NOT NULL,
    author     text NOT NULL,
    rating     smallint NOT NULL CHECK (rating BETWEEN 1 AND 5),
    body       text NOT NULL,
    picture    text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (product_id, user_id)
);

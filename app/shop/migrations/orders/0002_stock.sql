-- More than a load test sells. Running it again gives nothing back that was sold.
INSERT INTO stock (product_id, available)
SELECT id, 1000000 FROM generate_series(1, 12) AS id
ON CONFLICT (product_id) DO NOTHING;

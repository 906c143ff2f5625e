-- SPDX-License-Identifier: Apache-2.0
-- A database's share of the day: inserts, an index, joins, aggregates, updates.
PRAGMA journal_mode = WAL;
CREATE TABLE item (id INTEGER PRIMARY KEY, kind INTEGER, name TEXT, price REAL);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
INSERT INTO item SELECT i, i * 7919 % 97, 'item ' || (i * 31337 % 65521), i * 0.25 FROM n;
COMMIT;
CREATE INDEX item_name ON item (name);
CREATE TABLE kind AS SELECT kind AS id, count(*) AS items, sum(price) AS total FROM item GROUP BY kind;
SELECT count(*), sum(price) FROM item WHERE name BETWEEN 'item 2' AND 'item 4';
SELECT k.id, k.items, count(i.id) FROM kind k JOIN item i ON i.kind = k.id WHERE i.price > 9000
  GROUP BY k.id ORDER BY 3 DESC, 1 LIMIT 10;
UPDATE item SET price = price * 1.1 WHERE kind % 3 = 0;
DELETE FROM item WHERE id % 5 = 0;
SELECT a.kind, count(*) FROM item a JOIN item b ON a.name = b.name AND a.id < b.id GROUP BY a.kind ORDER BY 2 DESC, 1 LIMIT 5;
SELECT length(group_concat(name, ',')) FROM item;
PRAGMA integrity_check;

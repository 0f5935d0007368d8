//! Queries of the oracle with aggregates of every kind, grouping sets, set operations, subqueries
//! and functions, over `t`, `u` and `x`.

pub const TABLE: &str =
    "CREATE TABLE x (k int, b bigint, f double precision, ok boolean, at timestamp, j jsonb)";

pub const QUERIES: &[&str] = &[
    "SELECT k, bool_and(ok) AS ba, bool_or(ok) AS bo, every(ok) AS e, count(ok) AS n FROM x \
     GROUP BY k",
    "SELECT k, sum(b) AS sb, avg(b) AS ab, min(b) AS lo, max(b) AS hi, sum(DISTINCT b) AS db \
     FROM x GROUP BY k",
    "SELECT k, sum(f) AS sf, avg(f) AS af, var_samp(f) AS vs, var_pop(f) AS vp, \
     stddev_samp(f) AS ss, stddev_pop(f) AS sp FROM x GROUP BY k",
    "SELECT ok, covar_pop(f, k) AS cp, covar_samp(f, k) AS cs, corr(f, k) AS c, \
     regr_slope(f, k) AS rs, regr_intercept(f, k) AS ri, regr_r2(f, k) AS r2, \
     regr_count(f, k) AS rc, regr_avgx(f, k) AS rx, regr_sxy(f, k) AS sxy FROM x GROUP BY ok",
    "SELECT k, bit_and(v) AS ba, bit_or(v) AS bo, bit_xor(v) AS bx FROM t GROUP BY k",
    "SELECT k, string_agg(s, ',' ORDER BY id DESC) AS st, array_agg(v ORDER BY id) AS av, \
     array_agg(DISTINCT v) AS dv, string_agg(DISTINCT s, '-') AS ds FROM t GROUP BY k",
    "SELECT s, percentile_cont(0.3) WITHIN GROUP (ORDER BY v) AS pc, \
     percentile_disc(0.7) WITHIN GROUP (ORDER BY v DESC) AS pd, \
     mode() WITHIN GROUP (ORDER BY v) AS mo, median(d) AS me FROM t GROUP BY s",
    "SELECT k, first_value(s ORDER BY v, id) AS fs, last_value(v ORDER BY id DESC) AS lv, \
     any_value(s) AS an FROM t GROUP BY k",
    "SELECT k, json_agg(v ORDER BY id) AS ja, jsonb_object_agg(id, s) AS jo FROM t GROUP BY k",
    "SELECT k, count(DISTINCT v) FILTER (WHERE s = 'a') AS n, avg(DISTINCT d) AS ad, \
     array_agg(v ORDER BY v DESC) FILTER (WHERE v > 2) AS av, \
     approx_count_distinct(s) AS ac FROM t GROUP BY k",
    "SELECT min(at) AS lo, max(at) AS hi, count(DISTINCT at) AS n, array_agg(at ORDER BY at) AS a \
     FROM x",
    "SELECT k, s, count(*) AS n, sum(v) AS sv, grouping(k, s) AS g FROM t GROUP BY ROLLUP (k, s)",
    "SELECT k, s, count(*) AS n, array_agg(v ORDER BY id) AS av FROM t GROUP BY CUBE (k, s)",
    "SELECT k, s, sum(d) AS sd, count(DISTINCT v) FILTER (WHERE v > 1) AS n FROM t \
     GROUP BY GROUPING SETS ((k), (s), ()) HAVING count(*) <> 1",
    "SELECT k, s FROM t EXCEPT SELECT k, s FROM u",
    "SELECT k, s FROM t INTERSECT SELECT k, s FROM u",
    "SELECT k, s FROM u EXCEPT ALL SELECT k, s FROM t",
    "SELECT s FROM u INTERSECT ALL SELECT s FROM t",
    "SELECT k FROM t EXCEPT ALL (SELECT k FROM u INTERSECT ALL SELECT k FROM x)",
    "SELECT id FROM t WHERE v NOT IN (SELECT w FROM u)",
    "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.w = t.v)",
    "SELECT id, v - (SELECT max(w) FROM u) AS d FROM t WHERE v > (SELECT avg(w) FROM u)",
    "SELECT t.id, u.w, x.b FROM t JOIN u ON t.k = u.k LEFT JOIN x ON x.k = u.k AND x.ok",
    "SELECT t.s, count(*) AS n, sum(x.b) AS sb FROM t, u, x \
     WHERE t.k = u.k AND u.k = x.k AND t.v < 5 GROUP BY t.s",
    "SELECT k, date_trunc('day', at) AS day, at + INTERVAL '1 month' AS next, \
     extract(hour FROM at) AS h, to_char(at, 'YYYY-MM-DD HH24:MI') AS c FROM x",
    "SELECT j ->> 'a' AS a, count(*) AS n, sum((j -> 'b')::int) AS sb FROM x \
     WHERE j @> '{\"c\": true}' OR j ? 'a' GROUP BY j ->> 'a'",
    "SELECT k, b / 3 AS third, b % 7 AS rest, round(f::numeric, 1) AS r, b::numeric / 7 AS q, \
     greatest(b, k) AS g, coalesce(f, k) AS c, abs(b / 2) AS h FROM x WHERE abs(f) < 1e9",
    "SELECT id, s || '-' || v AS sv, upper(s) AS us, length(s) AS n, s ~ '[ab]' AS m, \
     replace(s, 'a', 'xx') AS r, split_part(s, 'b', 1) AS p, nullif(s, '') AS e FROM t",
];

"""What a board may not say is refused when it is made."""

import unittest

from promql import heat, quantile, rate, series, spent
from style import fine, graph


class Refused(unittest.TestCase):
    def test_names_that_there_are_none_of(self):
        for wrong in (
            lambda: series("kldtrace_zfs_op_latency"),
            lambda: rate("kldtrace_zfs_op_bytes"),
            lambda: quantile(0.99, "kldtrace_zfs_op_latency_seconds_bucket"),
        ):
            self.assertRaises(ValueError, wrong)

    def test_one_kind_taken_for_another(self):
        for wrong in (
            lambda: rate("kldtrace_zfs_op_latency_seconds"),
            lambda: quantile(0.99, "kldtrace_zfs_op_bytes_total"),
            lambda: spent("kldtrace_zfs_op_bytes_total"),
            lambda: heat("kldtrace_zfs_op_bytes_total"),
        ):
            self.assertRaises(ValueError, wrong)

    def test_titles_that_would_be_cut(self):
        self.assertRaises(ValueError, lambda: fine("a" * 21, "up"))


class Made(unittest.TestCase):
    def test_what_can_be_chosen_is_matched(self):
        selector = series("kldtrace_zfs_op_bytes_total", 'op="read"')
        self.assertEqual(
            selector,
            'kldtrace_zfs_op_bytes_total{job="kldtrace", node=~`${node:regex}`, '
            'pool=~`${pool:regex}`, dataset=~`${dataset:regex}`, op="read"}',
        )

    def test_empty_is_good_only_where_it_is_said(self):
        said = graph("a", ("up", ""), empty="None.").build()
        self.assertEqual(said.field_config.defaults.no_value, "None.")
        self.assertIsNone(graph("a", ("up", "")).build().field_config.defaults.no_value)


if __name__ == "__main__":
    unittest.main()

"""Tests that the comparison finds faults. Otherwise the demo and the peers would prove nothing."""

import hashlib
import os
import tempfile
import unittest

from compare import compare, read_lines


def picture(content, **more):
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **more}


def published(number, score=0.9, reg_pic=b"registered", spot_pic=b"spot"):
    return {"id": f"aa-{number}", "score": score, "reg_pic": picture(reg_pic), "spot_pic": picture(spot_pic)}


def received(number, reg_pic=b"registered", spot_pic=b"spot"):
    return {
        "id": f"aa-{number}",
        "reg_pic": picture(reg_pic, file=f"{number}-reg.jpg"),
        "ext_data": {"spot_pic": picture(spot_pic, file=f"{number}-spot.jpg")},
    }


class Comparison(unittest.TestCase):
    def test_agrees_when_everything_came_once(self):
        report = compare([published(1), published(2)], [received(2), received(1)])
        self.assertTrue(report.agrees)
        self.assertEqual(report.verdict(), "delivered 2/2 events, 0 lost, 0 duplicated")

    def test_names_a_lost_event(self):
        report = compare([published(1), published(2)], [received(1)])
        self.assertFalse(report.agrees)
        self.assertEqual(report.lost, ["aa-2"])
        self.assertEqual(report.verdict(), "delivered 1/2 events, 1 lost, 0 duplicated")

    def test_counts_every_duplicate(self):
        report = compare([published(1)], [received(1), received(1), received(1)])
        self.assertFalse(report.agrees)
        self.assertEqual(report.verdict(), "delivered 1/1 events, 0 lost, 2 duplicated")

    def test_sees_a_changed_picture(self):
        for changed in ({"reg_pic": b"other"}, {"spot_pic": b"other"}):
            with self.subTest(changed):
                report = compare([published(1)], [received(1, **changed)])
                self.assertFalse(report.agrees)
                self.assertIn(next(iter(changed)), report.wrong[0])

    def test_sees_pictures_exchanged(self):
        report = compare([published(1)], [received(1, reg_pic=b"spot", spot_pic=b"registered")])
        self.assertEqual(len(report.wrong), 2)

    def test_sees_an_event_that_nobody_published(self):
        self.assertFalse(compare([published(1)], [received(1), received(7)]).agrees)

    def test_a_missing_picture_may_be_written_in_several_ways(self):
        sent = published(1) | {"reg_pic": None, "spot_pic": None}
        for nothing in (None, "", {"sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0}):
            with self.subTest(nothing):
                self.assertTrue(compare([sent], [{"id": "aa-1", "reg_pic": nothing, "ext_data": {}}]).agrees)

    def test_a_picture_that_was_dropped_or_invented_is_wrong(self):
        without = {"id": "aa-1", "reg_pic": None, "ext_data": {}}
        self.assertEqual(len(compare([published(1)], [without]).wrong), 2)
        self.assertEqual(len(compare([published(1) | {"reg_pic": None}], [received(1)]).wrong), 1)

    def test_events_below_the_threshold_must_not_come(self):
        low, high = published(1, score=0.2), published(2, score=0.8)
        self.assertTrue(compare([low, high], [received(2)], threshold=0.5).agrees)
        self.assertFalse(compare([low, high], [received(1), received(2)], threshold=0.5).agrees)

    def test_ids_given_twice_are_no_agreement(self):
        self.assertFalse(compare([published(1), published(1)], [received(1)]).agrees)

    def test_the_stored_files_are_hashed_again(self):
        with tempfile.TemporaryDirectory() as store:
            def write(name, content):
                with open(os.path.join(store, name), "wb") as file:
                    file.write(content)

            write("1-reg.jpg", b"registered")
            self.assertFalse(compare([published(1)], [received(1)], store=store).agrees, "a file is missing")
            write("1-spot.jpg", b"spot")
            self.assertTrue(compare([published(1)], [received(1)], store=store).agrees)
            write("1-spot.jpg", b"spoT")
            self.assertFalse(compare([published(1)], [received(1)], store=store).agrees, "a file was changed")

    def test_a_line_still_being_written_is_left_out(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "events.jsonl")
            self.assertEqual(read_lines(path), [])
            with open(path, "w") as file:
                file.write('{"id":"a"}\n{"id":"b')
            self.assertEqual(read_lines(path), [{"id": "a"}])


if __name__ == "__main__":
    unittest.main()

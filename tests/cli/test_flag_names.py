import pytest

from sporeprint.cli.flag_names import in_flags

FLAGS = {
    "sample_column": "--sample-column",
    "label_column": "--label-column",
    "split": "--split",
    "max_pixels": "--max-pixels",
    "dim": "--dim",
}


@pytest.mark.parametrize(
    ("library", "command_line"),
    [
        ("leave out sample_column, label_column", "leave out --sample-column, --label-column"),
        ("leave out label_column.", "leave out --label-column."),
        ("split='train' chooses among files", "--split 'train' chooses among files"),
        ("choose one of them (split)", "choose one of them (--split)"),
        ("dim=0; expected at least 1", "--dim 0; expected at least 1"),
        ("the split is one file", "the split is one file"),
        ("allow more with max_pixels (--max-pixels)", "allow more with max_pixels (--max-pixels)"),
        ("there is no column 'label_column'", "there is no column 'label_column'"),
        ("'a/label_column/b' and x.sample_column", "'a/label_column/b' and x.sample_column"),
        ("my_label_column and label_columns", "my_label_column and label_columns"),
    ],
)
def test_arguments_become_options_and_what_is_quoted_stays(library, command_line):
    assert in_flags(library, FLAGS) == command_line

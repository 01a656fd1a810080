"""The nine of GLUE on tiny files that are laid out as the published ones, and on broken twins of them."""

import pickle
from pathlib import Path

import pytest
import torch
from scipy import stats
from sklearn.metrics import matthews_corrcoef

import trainers
from trainers.inputs import call
from trainers.tasks import DataError, tasks

PAIR = "sentence1\tsentence2"
PARSES = "sentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
MNLI = f"index\tpromptID\tpairID\tgenre\t{PARSES}\t{PAIR}"
MRPC = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"
QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"
CUT = "7\t1\t2\tIs it cut\n"

# name -> folder, dev file, train file, dev file's content; in each two samples, the second of class 0
FILES = {
    "cola": (
        "CoLA",
        "dev.tsv",
        'gj04\t1\t\tOur friends.\nc13\t0\t*\tThem "ran.\n',
        "a\t1\t\tHe ran.\nb\t0\t*\tx\n",
    ),
    "sst2": (
        "SST-2",
        "dev.tsv",
        "sentence\tlabel\na “fine” film \t1\nbad\t0\n",
        "sentence\tlabel\nx\t1\ny\t0\n",
    ),
    "mrpc": (
        "MRPC",
        "dev.tsv",
        f'{MRPC}\r\n1\t70\t71\t"He ran.\tHe "ran.\r\n0\t7\t8\tx\ty\r\n',
        f"{MRPC}\r\n1\t1\t2\tx\ty\r\n0\t1\t2\tx\ty\r\n",
    ),
    "stsb": (
        "STS-B",
        "dev.tsv",
        f"index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\t{PAIR}\tscore\n"
        "0\tm\tM\t2012\t1\tn\tn\tA plane.\tAn air plane.\t5.000\n1\tm\tM\t2012\t1\tn\tn\tx\ty\t0.00\n",
        f"index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\t{PAIR}\tscore\n"
        "0\tm\tM\t2012\t1\tn\tn\tx\ty\t2.5\n1\tm\tM\t2012\t1\tn\tn\tx\ty\t0\n",
    ),
    "qqp": (
        "QQP",
        "dev.tsv",
        f"{QQP}\n{CUT}1\t1\t2\tIs it?\tIs it?\t1\n2\t1\t2\tx\ty\t0\n{CUT}",
        f"{QQP}\n1\t1\t2\tx\ty\t1\n2\t1\t2\tx\t\t0\n",
    ),
    "mnli_m": (
        "MNLI",
        "dev_matched.tsv",
        f"{MNLI}\tlabel1\tgold_label\n0\t3\t3n\tf\tp\tp\tp\tp\tHe ran.\tHe sat.\tneutral\tneutral\n"
        "1\t3\t3n\tf\tp\tp\tp\tp\tx\ty\tentailment\tentailment\n",
        f"{MNLI}\tlabel1\tlabel2\tgold_label\n0\t3\t3n\tf\tp\tp\tp\tp\tx\ty\tneutral\tneutral\tcontradiction\n"
        "1\t3\t3n\tf\tp\tp\tp\tp\tx\ty\tneutral\tneutral\tentailment\n",
    ),
    "qnli": (
        "QNLI",
        "dev.tsv",
        "index\tquestion\tsentence\tlabel\n0\tWho ran?\tHe ran.\tnot_entailment\n1\tx\ty\tentailment\n",
        "index\tquestion\tsentence\tlabel\n0\tx\ty\tnot_entailment\n1\tx\ty\tentailment\n",
    ),
    "rte": (
        "RTE",
        "dev.tsv",
        f"index\t{PAIR}\tlabel\n0\tHe ran.\tShe ran.\tnot_entailment\n1\tx\ty\tentailment\n",
        f"index\t{PAIR}\tlabel\n0\tx\ty\tnot_entailment\n1\tx\ty\tentailment\n",
    ),
}
FILES["mnli_mm"] = ("MNLI", "dev_mismatched.tsv", *FILES["mnli_m"][2:])
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *'abcdefghijklmnopqrstuvwxyz.,?"“”', "ran", "he"]


def write(root: Path, name: str) -> Path:
    folder = root / FILES[name][0]
    folder.mkdir()
    (folder / "train.tsv").write_bytes(FILES[name][2].encode())
    (folder / FILES[name][1]).write_bytes(FILES[name][3].encode())
    (root / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    return folder


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore:2 lines of .* lack columns")
def test_the_published_files(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, name)
    task = tasks[f"glue/{name}"](tmp_path)
    assert task.splits == {"train": 2, "test": 2}
    assert task.identity == tasks[f"glue/{name}"](folder).identity
    inputs, labels = task.batch("train", [1, 0])
    single, score = name in ("cola", "sst2"), name == "stsb"
    assert labels.tolist() == ([0.0, 5.0] if score else [0, 1])
    length = 64 if single else 128
    assert all(values.shape == (2, length) and values.dtype == torch.int64 for values in inputs.values())
    assert inputs["token_type_ids"].any() != single
    assert {n: v.shape for n, v in task.example_inputs.items()} == dict.fromkeys(inputs, (1, length))
    ids = inputs["input_ids"][0]
    if not single:
        assert ids[:6].tolist() == [2, TOKENS.index("x"), 3, TOKENS.index("y"), 3, 0]
    network = trainers.create_model("bert_tiny4@small", **task.sizes)
    outputs = call(network, inputs)
    assert outputs.shape[1] == {"stsb": 1, "mnli_m": 3, "mnli_mm": 3}.get(name, 2)
    assert task.loss(outputs, labels).requires_grad
    metrics = task.metrics()
    metrics.update(outputs, labels)
    assert task.metric in metrics.compute()


@pytest.mark.parametrize("name", ["cola", "mrpc"])
def test_a_quotation_mark_is_one(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    inputs, _ = tasks[f"glue/{name}"](tmp_path).batch("train", [1 if name == "cola" else 0])
    assert TOKENS.index('"') in inputs["input_ids"][0].tolist()


def test_lines_of_qqp_that_are_cut_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "qqp")
    with pytest.warns(
        UserWarning, match="2 lines of .*train.tsv lack columns and are left out, first line 2"
    ):
        task = tasks["glue/qqp"](tmp_path)
    assert task.splits["train"] == 2


def test_how_the_folder_is_named_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, "rte")
    before = tasks["glue/rte"](tmp_path)
    (folder / "dev.tsv").open("ab").write(b"\r\n\n")
    after = tasks["glue/rte"](tmp_path)
    assert after.splits == before.splits, "an empty line is none"
    for place, data in ((folder, "."), (folder, ".."), (tmp_path, "RTE")):
        monkeypatch.chdir(place)
        task = tasks["glue/rte"](Path(data))
        assert (task.identity, task.sizes) == (after.identity, before.sizes), "with the vocabulary above it"
    copied = pickle.loads(pickle.dumps(task))
    monkeypatch.chdir("/")
    assert (
        copied.batch("test", [1])[0]["input_ids"].tolist()
        == after.batch("test", [1])[0]["input_ids"].tolist()
    )


def test_without_a_vocabulary_one_is_made(tmp_path: Path) -> None:
    write(tmp_path, "rte")
    (tmp_path / "vocab.txt").unlink()
    with pytest.warns(UserWarning, match="no vocab.txt in .*RTE: the vocabulary is made"):
        task = tasks["glue/rte"](tmp_path)
    assert 5 < task.sizes["vocabulary"] < 60
    assert 1 not in task.batch("train", [0])[0]["input_ids"]


def change(tmp_path: Path, name: str, before: bytes, after: bytes) -> None:
    path = write(tmp_path, name) / "train.tsv"
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after))


@pytest.mark.parametrize(
    ("name", "before", "after", "sentence"),
    [
        ("sst2", b"label", b"mark", "should have the column 'label', and has 'sentence', 'mark'"),
        ("stsb", b"sentence2", b"sentence", "should have the column 'sentence2'"),
        ("mrpc", b"#2 String", b"String", "should have the column '#2 String'"),
        ("sst2", b"\t0", b"", "Line 3 of .* should have 2 columns with tabs between them, and has 1"),
        ("cola", b"\t*\tThem", b"Them", "Line 2 of .* should have 4 columns"),
        (
            "rte",
            b"\tnot_",
            b"\tno_",
            "label in line 2 of .* should be one of entailment, not_entailment, and is",
        ),
        (
            "mnli_m",
            b"\tneutral\n",
            b"\t-\n",
            "should be one of entailment, neutral, contradiction, and is '-'",
        ),
        ("qqp", b"\t1\n", b"\t2\n", "label in line 3 of .* should be one of 0, 1, and is '2'"),
        ("stsb", b"5.000", b"5.001", "should be a number from 0 to 5, and is '5.001'"),
        ("stsb", b"5.000", b"nan", "should be a number from 0 to 5, and is 'nan'"),
        ("stsb", b"5.000", b"high", "should be a number from 0 to 5, and is 'high'"),
        ("cola", b"Our", b"Caf\xe9", "should be UTF-8 text, but its line 1 is not"),
        ("qnli", b"Who", b"Caf\xe9", "should be UTF-8 text, but its line 2 is not"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, before: bytes, after: bytes, sentence: str) -> None:
    change(tmp_path, name, before, after)
    with pytest.raises(DataError, match=sentence):
        tasks[f"glue/{name}"](tmp_path)


@pytest.mark.parametrize("content", [b"", b"sentence\tlabel\n"], ids=["empty", "header"])
def test_files_without_samples(tmp_path: Path, content: bytes) -> None:
    (write(tmp_path, "sst2") / "dev.tsv").write_bytes(content)
    with pytest.raises(DataError, match="dev.tsv has no samples"):
        tasks["glue/sst2"](tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no .*MNLI/train.tsv. Fetch MNLI from https://gluebenchmark.com"):
        tasks["glue/mnli_mm"](tmp_path)
    write(tmp_path, "mnli_m")
    with pytest.raises(DataError, match="no .*MNLI/dev_mismatched.tsv"):
        tasks["glue/mnli_mm"](tmp_path)


@pytest.mark.filterwarnings("ignore:The variance of predictions")
def test_matthews_and_the_correlations(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (40,), generator=generator)
    outputs = torch.randn(40, 2, generator=generator)
    metrics = tasks["glue/cola"].metrics(None)
    for part in (slice(0, 15), slice(15, 40)):
        metrics.update(outputs[part], labels[part])
    expected = matthews_corrcoef(labels.numpy(), outputs.argmax(1).numpy())
    assert metrics.compute()["matthews"].item() == pytest.approx(expected, abs=1e-6)

    scores, outputs = 5 * torch.rand(40, generator=generator), torch.randn(40, 1, generator=generator)
    metrics = tasks["glue/stsb"].metrics(None)
    for part in (slice(0, 15), slice(15, 40)):
        metrics.update(outputs[part], scores[part])
    found = {name: value.item() for name, value in metrics.compute().items()}
    pearson = stats.pearsonr(outputs[:, 0], scores).statistic
    spearman = stats.spearmanr(outputs[:, 0], scores).statistic
    expected = {"pearson": pearson, "spearman": spearman, "correlation": (pearson + spearman) / 2}
    assert found == pytest.approx(expected, abs=1e-5)
    metrics.reset()
    metrics.update(torch.ones(3, 1), scores[:3])
    assert {name: value.item() for name, value in metrics.compute().items()} == dict.fromkeys(found, 0)

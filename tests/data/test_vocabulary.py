"""Class lists and their words: those that ship, those of files, those of a text."""

import pytest

from pnp_ovss import mini
from pnp_ovss.data.vocabulary import (
    BENCHMARKS,
    benchmark_vocabulary,
    class_names,
    load_vocabulary,
    parse_classes,
    read_classes,
    vocabularies,
)
from pnp_ovss.errors import InputError


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("voc", 20), ("context", 59), ("coco-object", 80), ("coco-stuff", 171), ("coco-panoptic", 133)),
        *(("ade20k", 150), ("scenes", 26)),
    ],
)
def test_class_lists_that_ship(name, count):
    vocabulary = load_vocabulary(name)
    assert vocabulary.name == name
    assert vocabulary.classes == class_names(name)
    assert len(vocabulary.classes) == len(vocabulary.numbered()) == count
    assert len({word.casefold() for word in vocabulary.flat}) == len(vocabulary.flat)
    assert all(vocabulary.find(word) == cls for cls, words in vocabulary.words.items() for word in (cls, *words))


def test_the_list_of_the_scenes_is_what_is_drawn():
    assert class_names("scenes") == mini.THINGS + mini.STUFF


@pytest.mark.parametrize("name", BENCHMARKS)
def test_models_are_asked_in_good_english(name):
    vocabulary = load_vocabulary(name)
    for word in (*vocabulary.flat, *vocabulary.terms):
        assert all(part.isalpha() for part in word.split()), word
        assert not {"merged", "stuff", "other", "diningtable", "pottedplant", "tvmonitor", "playingfield"} & {
            *word.split(),
            word,
        }
    assert all(vocabulary.find(cls) == cls for cls in class_names(name))


def test_a_vocabulary_has_one_spelling():
    assert load_vocabulary("voc").words["tvmonitor"] == ("TV monitor",)
    assert load_vocabulary("voc.plain").words["tvmonitor"] == ("tvmonitor",)
    assert load_vocabulary("voc.authors").words["diningtable"] == ("table",)
    assert load_vocabulary("coco-panoptic").words["tree-merged"] == ("tree",)
    assert "background" not in load_vocabulary("voc.synonyms").classes
    classes = class_names("voc")
    one, two = (benchmark_vocabulary(name, classes, "voc") for name in ("voc.synonyms", "synonyms"))
    assert (one.words, one.name) == (two.words, two.name)


def test_class_lists_are_in_official_order():
    voc, context, stuff, ade = map(class_names, ("voc", "context", "coco-stuff", "ade20k"))
    assert [voc[label - 1] for label in (1, 11, 15, 20)] == ["aeroplane", "diningtable", "person", "tvmonitor"]
    assert [context[label - 1] for label in (1, 30, 59)] == ["aeroplane", "ground", "wood"]
    assert [stuff[label - 1] for label in (12, 80, 81, 171)] == ["stop sign", "toothbrush", "banner", "wood"]
    names = ["wall", "person", "screen door", "truck", "screen", "flag"]
    assert [ade[label - 1] for label in (1, 13, 59, 84, 131, 150)] == names


def test_numbers_are_those_of_the_data_set():
    coco = load_vocabulary("coco-object").numbered()
    assert (coco[90], coco[13]) == ("toothbrush", "stop sign")
    assert 12 not in coco
    assert load_vocabulary("voc").numbered()[20] == "tvmonitor"


def test_other_words_for_a_class_are_known():
    voc = load_vocabulary("voc")
    assert voc.find("table") == "diningtable"
    assert voc.find("TV monitor") == "tvmonitor"
    assert voc.find("sky") is None  # a word of the background
    assert load_vocabulary("ade20k").find("edifice") == "building"


def test_a_file_has_a_class_a_line_and_is_tidied(tmp_path):
    path = tmp_path / "pets.txt"
    names = ["# pets", " dog ", "", "cat # small", "DOG", "\x1b[31mred", "cafe\u0301", "caf\u00e9", "traffic\t light"]
    path.write_text("\n".join([*names, "person: man, woman", "bird=bird|crow", "car, parked"]), encoding="utf-8")
    vocabulary = load_vocabulary(path)
    assert vocabulary.words == {
        "dog": ("dog",),
        "cat": ("cat",),
        "[31mred": ("[31mred",),
        "caf\u00e9": ("caf\u00e9",),
        "traffic light": ("traffic light",),
        "person": ("man", "woman"),
        "bird": ("bird", "crow"),
        "car, parked": ("car, parked",),
    }
    assert vocabulary.name == str(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no name; write one a line, such as 'dog'$"),
        (b"# dog\n \n", "has no name"),
        (b"\xff\xfe\x00", "is no text in UTF-8 .*; save it as UTF-8$"),
    ],
)
def test_a_file_that_is_no_vocabulary(tmp_path, content, message):
    path = tmp_path / "pets.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_vocabulary(path)


def test_a_vocabulary_that_is_not_there():
    with pytest.raises(InputError, match="^there is no vocabulary nowhere.txt; give one of voc, context, coco-object"):
        load_vocabulary("nowhere.txt")


def test_vocabularies_of_the_benchmarks():
    names = ("plain", "authors", "clearclip", "clippy", "corrclip", "english", "groupvit", "maskclip", "synonyms")
    assert vocabularies("voc") == names
    classes = class_names("voc")
    assert benchmark_vocabulary("plain", classes, "voc").words["diningtable"] == ("diningtable",)
    synonyms = benchmark_vocabulary("synonyms", classes, "voc")
    assert len(synonyms.words["background"]) == 26
    assert synonyms.words["boat"] == ("ship",)
    assert synonyms.find("screen") == "tvmonitor"
    ade = benchmark_vocabulary("synonyms", class_names("ade20k"), "ade20k").words
    assert ade["screen"] == ("screen", "silver screen", "projection screen")
    assert ade["screen door"] == ("screen door",)  # "screen" is another class's own name


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_prompt_names_each_word_once(benchmark):
    for name in vocabularies(benchmark):
        words = benchmark_vocabulary(name, class_names(benchmark), benchmark).flat
        twice = {word for word in words if words.count(word) > 1}
        assert twice == ({"screen"} if (benchmark, name) == ("ade20k", "authors") else set()), name
        assert len({word.casefold() for word in words}) == len(words) - len(twice), name


def test_the_authors_write_a_name_as_one_word_and_two_classes_of_ade_as_one():
    ade, stuff = (benchmark_vocabulary("authors", class_names(name), name).words for name in ("ade20k", "coco-stuff"))
    assert (ade["screen door"], ade["screen"], ade["pool table"]) == (("screen",), ("screen",), ("billiardtable",))
    assert (stuff["building-other"], stuff["traffic light"]) == (("buildingother",), ("trafficlight",))
    assert not any(set(" -") & set(word) for words in (*ade.values(), *stuff.values()) for word in words)
    assert load_vocabulary("ade20k").find("screen") == "screen"


def test_a_vocabulary_for_given_classes(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("cat: kitten, tom  cat # comment\nbackground: wall\n")
    words = benchmark_vocabulary(path, ("cat", "dog"), "folder").words
    assert words == {"cat": ("kitten", "tom cat"), "dog": ("dog",), "background": ("wall",)}
    path.write_text("cow: calf\n")
    with pytest.raises(InputError, match="'cow', which is no class of the data set"):
        benchmark_vocabulary(path, ("cat", "dog"), "folder")
    with pytest.raises(InputError, match="there is no vocabulary nothing; give a file, or one of plain"):
        benchmark_vocabulary("nothing", ("cat",), "folder")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dog", {"dog": ("dog",)}),
        ("dog, traffic  light", {"dog": ("dog",), "traffic light": ("traffic light",)}),
        ("person=person|child, dog", {"person": ("person", "child"), "dog": ("dog",)}),
        ("person = man|woman\n\ndog,\n", {"person": ("man", "woman"), "dog": ("dog",)}),
        ("person|child", {"person": ("person", "child")}),
        ("giraffe=a tall giraffe", {"giraffe": ("a tall giraffe",)}),
        ("person=man, dog, Person=woman", {"person": ("man", "woman"), "dog": ("dog",)}),
    ],
)
def test_classes_of_a_text(text, words):
    assert parse_classes(text).words == words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected at least one class name such as 'dog', got none"),
        ("dog,, cat", "a class name is empty"),
        ("dog=", "a class name is empty"),
        ("dog, Dog", "class 'Dog' is named twice"),
        ("man=person, woman=person", "class 'person' is named twice"),
    ],
)
def test_a_text_that_names_no_classes(text, message):
    with pytest.raises(InputError, match=message):
        parse_classes(text)


def test_classes_of_a_file(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("# mine\ncar, parked\nperson: man, woman # and children\ndog=dog|puppy\n", encoding="utf-8")
    assert read_classes(path).words == {
        "car, parked": ("car, parked",),
        "person": ("man", "woman"),
        "dog": ("dog", "puppy"),
    }
    path.write_text("dog\nDog\n", encoding="utf-8")
    with pytest.raises(InputError, match="class 'Dog' is named twice"):
        read_classes(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_classes(tmp_path / "nowhere.txt")


def test_names_without_their_spaces():
    words = benchmark_vocabulary("joined", ("sofa", "traffic light"), "coco-stuff")
    assert (words.words, words.name) == ({"sofa": ("sofa",), "traffic light": ("trafficlight",)}, "joined")
    words = benchmark_vocabulary("coco-stuff.corrclip+joined", ("person", "traffic light"), "coco-stuff")
    assert (words.words, words.name) == ({"person": ("people",), "traffic light": ("trafficlight",)}, "corrclip+joined")
    with pytest.raises(InputError, match=r"there is no vocabulary nothing\+joined; give a file, or one of plain"):
        benchmark_vocabulary("nothing+joined", ("person",), "coco-stuff")

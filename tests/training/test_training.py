"""Training: captions say what they should, a resumed run is the same run, and no mask is ever looked at."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    BertTokenizerFast,
    BlipForImageTextRetrieval,
    BridgeTowerForImageAndTextRetrieval,
)

import training
from pnp_ovss.mini.scenes import STUFF, THINGS, draw
from training.batches import hide, make_batch, names_of, tokens, visible
from training.captions import NAMES, Caption, corrupted, listed, pair, subjects
from training.config import HELD_OUT_SEED, TRAIN_SEED, TUNE_SEED, TrainConfig
from training.export import export, write_card
from training.losses import contrast_loss, look_loss, match_loss, tag_loss
from training.model import MiniBlip
from training.model_bridgetower import MiniBridgeTower, image_tower
from training.model_clip import MiniClip
from training.monitor import accuracies, mean_iou, predictions
from training.recipes import MATCH_CARD
from training.scene_cache import DrawnScenes, draw_scenes, open_scenes
from training.tokenizer import build_tokenizer, vocabulary
from training.train import Trainer, schedule, train

TINY = TrainConfig(
    steps=6,
    image_size=32,
    width=16,
    layers=1,
    heads=2,
    scenes=8,
    batch=4,
    warmup=2,
    match_from=2,
    look_layers=(0,),
    explain=2,
    explain_layer=0,
    fade_from=3,
    log_every=2,
    watch_every=6,
    save_every=3,
    watch_scenes=4,
)


class Blind:
    """A scene whose mask must not be read."""

    def __init__(self, seed: int, index: int, size: int) -> None:
        scene = draw(seed, index, size)
        self.image, self.things, self.stuff, self.caption = scene.image, scene.things, scene.stuff, scene.caption

    @property
    def mask(self) -> np.ndarray:
        raise AssertionError("training read a mask")

    def things_mask(self) -> np.ndarray:
        raise AssertionError("training read a mask")


@pytest.fixture(scope="module")
def scenes() -> DrawnScenes:
    return draw_scenes(TRAIN_SEED, 8, TINY.image_size)


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return build_tokenizer()


def test_true_captions_name_what_is_there_and_false_ones_one_thing_that_is_not():
    rng = np.random.default_rng(3)
    forms = set()
    for _ in range(2000):
        things = tuple(str(name) for name in rng.permutation(THINGS)[: rng.integers(1, 5)])
        stuff = tuple(str(name) for name in rng.permutation(STUFF)[: rng.integers(1, 3)])
        present = {*things, *stuff}
        true, wrong = pair(rng, things, stuff, 13)
        assert true.names
        assert set(true.names) <= present
        assert len(set(wrong.names) - present) == 1
        assert len(wrong.names) - len(true.names) in (0, 1)
        assert len(set(true.names) - set(wrong.names)) == (len(wrong.names) == len(true.names))
        assert all(name in true.text for name in true.names)
        assert all(name in wrong.text for name in wrong.names)
        forms.add(true.text == "a picture of " + " ".join(true.names))
    assert forms == {True, False}


def test_names_are_cut_to_the_word_limit_but_never_to_nothing():
    rng = np.random.default_rng(0)
    crowd = ("hot air balloon", "traffic light", "pine tree", "dog")
    for _ in range(300):
        names = subjects(rng, crowd, ("brick wall",), 4)
        assert len(names) == 1 or sum(len(name.split()) for name in names) <= 4
        assert corrupted(rng, names, (*crowd, "brick wall"), 4) != names


def test_sentences_use_articles_for_things_and_none_for_ground():
    assert listed(("dog", "umbrella", "sand")) == "a dog, an umbrella and sand"
    assert listed(("brick wall",)) == "a brick wall"


def test_tokenizer_keeps_whole_names_and_says_where_they_are(tmp_path: Path, tokenizer: BertTokenizer):
    tokenizer.save_pretrained(tmp_path)
    text = "A picture of dog traffic light"
    for kind in (AutoTokenizer, BertTokenizerFast):
        loaded = kind.from_pretrained(tmp_path)
        assert loaded.is_fast
        coded = loaded(text, return_offsets_mapping=True)
        assert set(coded) == {"input_ids", "attention_mask", "offset_mapping"}
        words = ["[CLS]", "a", "picture", "of", "dog", "traffic", "light", "[SEP]"]
        assert loaded.convert_ids_to_tokens(coded["input_ids"]) == words
        spans = coded["offset_mapping"][5:7]
        assert [text[a:b] for a, b in spans] == ["traffic", "light"]
        assert len(loaded) == len(vocabulary())


def test_tokenizer_knows_every_word_of_scenes_and_captions(tokenizer: BertTokenizer):
    rng = np.random.default_rng(0)
    texts = [f"a picture of {' '.join(NAMES)}"]
    for k in range(60):
        scene = draw(TUNE_SEED, k, 32)
        texts += [scene.caption, *(caption.text for caption in pair(rng, scene.things, scene.stuff, 13))]
    assert not any(tokenizer.unk_token_id in ids for ids in tokenizer(texts)["input_ids"])


def test_forward_is_that_of_the_exported_model(tmp_path: Path, scenes: DrawnScenes, tokenizer: BertTokenizer):
    """Nothing left out, [ENC] in the place of [CLS] for the match and [CLS] itself for the vectors."""
    config = replace(TINY, keep=1.0)
    torch.manual_seed(0)
    model = MiniBlip(config).half().float().eval()  # the precision it is exported in
    export(model, tokenizer, config, tmp_path / "mini")
    hub = BlipForImageTextRetrieval.from_pretrained(tmp_path / "mini", dtype=torch.float32)
    batch = make_batch(scenes, tokenizer, config, 0, 0)
    ids = batch.ids.clone()
    ids[..., 0] = hub.config.text_config.vocab_size - 1
    with torch.no_grad():
        image_tokens = model.encode_image(batch.pixels)
        logits = model.match(image_tokens, batch.ids, batch.mask)
        for k in range(ids.shape[1]):
            theirs = hub(ids[:, k], batch.pixels, attention_mask=batch.mask[:, k].long()).itm_score
            torch.testing.assert_close(logits[:, k], theirs, atol=1e-5, rtol=1e-4)
        image, text = model.vectors(image_tokens, batch.sentence_ids, batch.sentence_mask)
        mask = batch.sentence_mask.long()
        theirs = hub(batch.sentence_ids, batch.pixels, use_itm_head=False, attention_mask=mask).itm_score
        torch.testing.assert_close(image @ text.T, theirs, atol=1e-5, rtol=1e-4)
        everything = torch.arange(config.grid**2).expand(len(ids), -1)
        torch.testing.assert_close(model.encode_image(batch.pixels, everything), image_tokens)
        some = model.encode_image(batch.pixels, everything[:, :5])
        assert some.shape[1] == 6
        assert not torch.allclose(some, image_tokens[:, :6])
    assert hub.config.text_config.vocab_size == len(tokenizer) + 2


def test_bridgetower_forward_is_that_of_the_exported_model(
    tmp_path: Path, scenes: DrawnScenes, tokenizer: BertTokenizer
):
    """With the texts of an image side by side, and with what the text stream sees recorded layer by layer."""
    config = replace(TINY, keep=1.0, width=64, layers=4, name="mini-bridgetower")
    torch.manual_seed(0)
    model = MiniBridgeTower(config).half().float().eval()
    export(model, tokenizer, config, tmp_path / "mini")
    hub = BridgeTowerForImageAndTextRetrieval.from_pretrained(
        tmp_path / "mini", dtype=torch.float32, attn_implementation="eager"
    )
    looks: list[torch.Tensor] = []
    for layer in hub.bridgetower.cross_modal_text_layers:
        layer.crossattention.register_forward_hook(lambda _, __, out: looks.append(out[1]))
    batch, record = make_batch(scenes, tokenizer, config, 0, 0), list[torch.Tensor]()
    t = batch.ids.shape[-1]
    with torch.no_grad():
        logits = model.match(model.encode_image(batch.pixels), batch.ids, batch.mask, record)
        for k in range(batch.ids.shape[1]):
            looks.clear()
            theirs = hub(batch.ids[:, k], batch.mask[:, k].long(), pixel_values=batch.pixels).logits
            torch.testing.assert_close(logits[:, k], theirs, atol=1e-5, rtol=1e-4)
            for ours, look in zip(record, looks, strict=True):
                torch.testing.assert_close(ours[:, :, k * t : (k + 1) * t], look, atol=1e-5, rtol=1e-4)
        everything = torch.arange(config.grid**2).expand(len(batch.ids), -1)
        torch.testing.assert_close(model.encode_image(batch.pixels, everything), model.encode_image(batch.pixels))


def test_bridgetower_takes_over_the_image_tower_of_clip_and_leaves_it_as_it_is(
    scenes: DrawnScenes, tokenizer: BertTokenizer
):
    config = replace(TINY, width=64, layers=4)
    torch.manual_seed(0)
    clip, model = MiniClip(config).eval(), MiniBridgeTower(replace(config, pairs=1, contrast=0.0, match_from=0)).eval()
    visual = model.model.bridgetower.vision_model.visual
    visual.load_state_dict(image_tower(clip.model.state_dict()))
    batch = make_batch(scenes, tokenizer, config, 0, 0)
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode_image(batch.pixels)[..., -64:], clip.encode_image(batch.pixels), atol=1e-5, rtol=1e-4
        )
    loss, parts = match_loss(model, batch, replace(config, contrast=0.0, match_from=0), 3)
    loss.backward()
    assert set(parts) == {"tags", "match", "right", "look"}
    assert all(value.grad is None for value in visual.parameters())
    still = {name for name, value in model.named_parameters() if value.requires_grad and value.grad is None}
    assert still == {f"model.bridgetower.text_model.pooler.dense.{part}" for part in ("weight", "bias")}  # unused there


def test_hidden_patches_are_whole_and_zero_and_within_the_share():
    config = replace(TINY, image_size=112, hide=1.0)
    hidden = hide(torch.ones(12, 3, 112, 112), visible(np.random.default_rng(0), 12, config)) == 0
    cells = hidden[:, 0].unfold(1, 8, 8).unfold(2, 8, 8).float().mean((-1, -2))
    assert set(cells.unique().tolist()) == {0.0, 1.0}
    share = cells.mean((-1, -2))
    assert share.min() >= 0.05 - 0.01
    assert share.max() <= 0.3 + 16 / 196
    assert (hidden[:, 0] == hidden[:, 2]).all()


def test_batches_depend_on_seed_step_and_shard_alone(scenes: DrawnScenes, tokenizer: BertTokenizer):
    one, same = (make_batch(scenes, tokenizer, TINY, 4, 1) for _ in range(2))
    assert torch.equal(one.pixels, same.pixels)
    assert torch.equal(one.ids, same.ids)
    assert not torch.equal(one.pixels, make_batch(scenes, tokenizer, TINY, 4, 0).pixels)
    assert not torch.equal(one.pixels, make_batch(scenes, tokenizer, TINY, 5, 1).pixels)


def apart(one: torch.nn.Module, other: torch.nn.Module) -> float:
    return max((a - b).abs().max().item() for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, scenes: DrawnScenes, monkeypatch: pytest.MonkeyPatch
):
    found = {"layer": 0, "head": 0, "miou": 0.0}
    monkeypatch.setattr("training.monitor.places", lambda *_: dict.fromkeys(("attention", "gradcam"), found))
    runs = {}
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
        trainer = Trainer(TINY, scenes, tmp_path / name)
        if name == "stopped":
            for _ in range(3):
                trainer.advance()
            trainer.save()
            trainer.advance()  # lost, as it would be
            trainer = Trainer(TINY, scenes, tmp_path / name)
            trainer.load()
            assert trainer.step == 3
        lines = list(train(trainer, scenes))
        assert lines[-1]["match_accuracy"] >= 0
        runs[name] = trainer
    whole, stopped = runs["whole"], runs["stopped"]
    assert whole.step == stopped.step == 6
    assert apart(whole.model, stopped.model) == 0
    assert apart(whole.mean, stopped.mean) == 0
    states = [trainer.optimizer.state_dict()["state"] for trainer in (whole, stopped)]
    assert all(torch.equal(states[0][k][name], states[1][k][name]) for k in states[0] for name in states[0][k])
    assert {state["step"].item() for state in states[1].values()} == {6, 4}  # the match head starts at step 2

    other = Trainer(TINY, scenes, tmp_path / "whole")
    for step in (2, 1, 0, 3, 4, 5):  # the same steps in another order are not the same run
        other.step = step
        other.advance()
    assert apart(whole.model, other.model) > 2e-4
    assert (tmp_path / "whole" / "export-6" / "model.safetensors").exists()
    assert "never a stand-in" in (tmp_path / "whole" / "export-6" / "README.md").read_text()


def test_a_step_on_a_cpu_is_float32(tmp_path: Path, scenes: DrawnScenes, monkeypatch):
    trainer = Trainer(TINY, scenes, tmp_path)
    taken = []
    loss = trainer.recipe.loss
    seen = replace(trainer.recipe, loss=lambda *given: taken.append(torch.is_autocast_enabled("cpu")) or loss(*given))
    monkeypatch.setattr(trainer, "recipe", seen)
    trainer.advance()
    assert taken == [False] * TINY.shards


def test_a_run_is_not_continued_with_another_recipe(tmp_path: Path, scenes: DrawnScenes):
    Trainer(TINY, scenes, tmp_path).save()
    Trainer(replace(TINY, steps=9), scenes, tmp_path).load()
    with pytest.raises(SystemExit, match=r"other values of \['smoothing'\].*--fresh"):
        Trainer(replace(TINY, smoothing=0.0), scenes, tmp_path).load()


def test_training_never_looks_at_a_mask(tmp_path: Path, tokenizer: BertTokenizer):
    blind: Any = Blind
    scenes = draw_scenes(TRAIN_SEED, 4, TINY.image_size, draw=blind)
    trainer = Trainer(replace(TINY, match_from=0), scenes, tmp_path)
    losses = trainer.advance()
    assert set(losses) == {"tags", "contrast", "match", "right", "look"}
    trainer.step = TINY.learned
    assert set(trainer.advance()) == {"match", "look", "explain", "right"}
    assert 0 <= accuracies(trainer.mean, scenes, tokenizer)["match_accuracy"] <= 1


def test_scenes_on_disk_are_those_in_memory_and_are_drawn_once(tmp_path: Path, scenes: DrawnScenes):
    on_disk = open_scenes(tmp_path / "scenes", TRAIN_SEED, 8, TINY.image_size, workers=1)
    assert np.array_equal(on_disk.images, scenes.images)
    assert (on_disk.things, on_disk.stuff, on_disk.captions) == (scenes.things, scenes.stuff, scenes.captions)
    before = (tmp_path / "scenes" / "images.npy").stat().st_mtime_ns
    open_scenes(tmp_path / "scenes", TRAIN_SEED, 8, TINY.image_size, workers=1)
    assert (tmp_path / "scenes" / "images.npy").stat().st_mtime_ns == before


def test_tag_loss_wants_every_patch_explained_by_present_names_and_every_present_name_shown():
    present = torch.tensor([[True, True, False]])
    good = torch.tensor([[[9.0, 0, 0]] * 20 + [[0, 9.0, 0]] * 12])
    one_missing = torch.tensor([[[9.0, 0, 0]] * 32])
    absent_shown = torch.tensor([[[9.0, 0, 0]] * 20 + [[0, 9.0, 0]] * 10 + [[0, 0, 9.0]] * 2])
    flat = torch.zeros(1, 32, 3)
    values = [tag_loss(logits, present).item() for logits in (good, one_missing, absent_shown, flat)]
    assert values[0] < 0.01
    assert all(value > 0.5 for value in values[1:])
    assert tag_loss(flat, present).item() == pytest.approx(
        (2 * np.log(3) + np.log(3 / 2)) / 2 - np.log(2 / 3), abs=1e-5
    )


def test_look_loss_asks_that_true_names_look_at_their_patches_and_lets_wrong_ones_look_anywhere():
    said = torch.tensor([[[-1, 0], [-1, 1]]])  # one image; the second caption is the wrong one
    where = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]])  # patch 0 shows name 0, patch 1 name 1
    attention = torch.zeros(1, 2, 4, 3)  # two heads, four tokens, [CLS] and two patches
    attention[:, :, 1] = torch.tensor([[0.2, 0.6, 0.2], [0.2, 0.2, 0.6]])
    attention[:, :, 3] = torch.tensor([0.0, 1.0, 0.0])
    expected = -np.log((0.4 * 0.9 + 0.4 * 0.2) / 0.8)
    assert look_loss([attention], where, said).item() == pytest.approx(expected, abs=1e-6)
    assert look_loss([attention[..., 1:]], where, said).item() == pytest.approx(expected, abs=1e-6)


def test_tokens_know_which_name_they_are_part_of(tokenizer: BertTokenizer):
    caption = Caption("a traffic light and a dog", ("dog", "traffic light"))
    ids, _ = tokens(tokenizer, [caption.text])
    light, dog = NAMES.index("traffic light"), NAMES.index("dog")
    assert names_of(ids, [caption]).tolist() == [[-1, -1, light, light, -1, -1, dog, -1]]


def test_contrast_leaves_out_texts_that_are_true_too():
    """Text 0 (dog) is true of image 1 (dog, cat); text 1 is not true of image 0."""
    present = torch.tensor([[True, False], [True, True]])
    image, text = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    logits = image @ text.T
    rows = -torch.stack([logits[0].log_softmax(0)[0], torch.tensor(0.0)]).mean()
    columns = -torch.stack([torch.tensor(0.0), logits[:, 1].log_softmax(0)[1]]).mean()
    assert contrast_loss(image, text, present, 1.0).item() == pytest.approx(((rows + columns) / 2).item(), abs=1e-6)


def test_schedule_ramps_up_and_ends_at_nothing_for_learning_and_for_explaining():
    config = TrainConfig(steps=1200, warmup=100, explain=200, explain_rate=0.3)
    assert schedule(0, config) == pytest.approx(0.01)
    assert schedule(500, config) == pytest.approx(0.5)
    assert schedule(999, config) == pytest.approx(0.0, abs=1e-5)
    assert schedule(1000, config) == pytest.approx(0.3 / 50)
    assert schedule(1100, config) == pytest.approx(0.15)
    assert schedule(1199, config) == pytest.approx(0.0, abs=1e-4)
    assert [config.kept(step) for step in (849, 850, 1100)] == [98, 196, 196]


def test_a_run_has_steps_to_learn_in():
    with pytest.raises(ValueError, match="explain 800 leaves nothing of 600 steps"):
        TrainConfig(steps=600)


def test_the_monitor_scores_a_map_by_hand():
    maps = torch.tensor([[[1.0, 0.1], [0.1, 0.0]], [[0.0, 0.0], [0.0, 5.0]]])[None, None]  # layer head name p p
    prediction = predictions(maps, [3, 7])
    assert prediction[1, 0, 0].tolist() == [[3, 0], [0, 7]]
    confusion = np.array([[2, 1], [0, 1]])[None, None, None]
    assert mean_iou(confusion).item() == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_seeds_are_three_and_the_held_out_one_is_not_used():
    assert len({TRAIN_SEED, TUNE_SEED, HELD_OUT_SEED}) == 3
    sources = Path(training.__file__).parent.glob("*.py")
    assert sum("HELD_OUT_SEED" in path.read_text() for path in sources) == 1  # config.py, which names it


def test_card_needs_nothing_but_the_log(tmp_path: Path, tokenizer: BertTokenizer):
    export(MiniBlip(TINY), tokenizer, TINY, tmp_path / "mini")
    found = '{"layer": 0, "head": 1, "miou": 0.5}'
    watched = f'"match_accuracy": 0.9, "attention": {found}, "gradcam": {found}'
    machines = [{"device": "2 CPU cores", "torch": "9.0"}, {"device": "a GPU", "torch": "9.0"}]
    started = "".join(json.dumps({"step": 0, "seconds": 0, "started": k}) + "\n" for k in (*machines, machines[0]))
    (tmp_path / "log.jsonl").write_text(
        f'{started}{{"step": 2, "seconds": 60, "tags": 1.0}}\n{{"step": 6, "seconds": 120, "watched": {{{watched}}}}}\n'
    )
    write_card(tmp_path / "mini", TINY, MATCH_CARD, tmp_path / "log.jsonl")
    card = SimpleNamespace(**json.loads((tmp_path / "mini" / "card.json").read_text()))
    assert (card.minutes, card.images) == (2.0, 6 * TINY.batch)
    assert (card.watched[-1]["step"], card.watched[-1]["match_accuracy"]) == (6, 0.9)
    assert (card.trained_on, card.losses) == (machines, [{"step": 2, "seconds": 60, "tags": 1.0}])
    readme = (tmp_path / "mini" / "README.md").read_text()
    assert "0.900" in readme
    assert "2.0 minutes on 2 CPU cores and a GPU;" in readme

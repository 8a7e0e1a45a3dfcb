"""Groups and layer-wise rates against values computed by hand."""

import pytest
import torch
from torch import nn

from whisfusion_asr.errors import UserError
from whisfusion_asr.training.groups import GroupRule, build_optimizer, inventory, parameter_groups
from whisfusion_asr.training.muon import Muon


def toy(blocks: int = 3) -> nn.Module:
    """Names as in the real model: encoder.blocks, ctc, decoder.{embed,blocks,adapters,norm,head}."""
    layer = lambda: nn.ModuleDict({"norm": nn.LayerNorm(4), "linear": nn.Linear(4, 4)})  # noqa: E731
    decoder = nn.ModuleDict(
        {
            "embed": nn.Embedding(5, 4),
            "blocks": nn.ModuleList(layer() for _ in range(blocks)),
            "adapters": nn.ModuleList(layer() for _ in range(blocks)),
            "norm": nn.RMSNorm(4),
            "head": nn.Linear(4, 5, bias=False),
        }
    )
    encoder = nn.ModuleDict({"input": nn.Conv1d(2, 4, 3), "blocks": nn.ModuleList([layer()])})
    return nn.ModuleDict({"encoder": encoder, "ctc": nn.Linear(4, 6), "decoder": decoder})


def rates(model: nn.Module, groups: list[dict]) -> dict[str, tuple]:
    """name -> (lr, weight decay, muon)."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"], group.get("muon", False))
        for group in groups
        for parameter in group["params"]
    }


def test_every_trainable_parameter_is_in_exactly_one_group():
    """None lost, none twice, frozen ones left out."""
    model = toy()
    model["encoder"].requires_grad_(False)
    groups = parameter_groups(model, 1.0, 0.1, GroupRule(layer_decay=0.9), muon=True)
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == sum(p.requires_grad for p in model.parameters())
    assert not any(name.startswith("encoder") for name in rates(model, groups))


def test_a_second_copy_of_the_layers_has_the_rates_of_the_first():
    """Of a decoder with layers of its own for reading."""
    rule, part = GroupRule(layer_decay=0.9), "decoder.causal_layers"
    for name in ("blocks.0.norm.bias", "blocks.2.linear.weight", "adapters.1.linear.weight", "norm.weight"):
        assert rule.factor(f"{part}.{name}", 3) == rule.factor(f"decoder.{name}", 3)
    assert rule.factor(f"{part}.blocks.0.norm.bias", 3) == pytest.approx(0.81)


@pytest.mark.parametrize("lr_of", [{"decoder.blocks.1": 0.1, "ctc": 2}, {"decoder": {"blocks.1": 0.1}, "ctc": 2}])
def test_a_part_with_a_rate_of_its_own(lr_of):
    """On top of the layer-wise ones; the others keep theirs."""
    model = toy()
    rule = GroupRule(layer_decay=0.5, lr_of=lr_of)
    got = {name: value[0] for name, value in rates(model, parameter_groups(model, 1.0, 0.0, rule)).items()}
    assert got["decoder.blocks.1.linear.weight"] == pytest.approx(0.05) and got["ctc.bias"] == 2
    assert got["decoder.blocks.2.linear.weight"] == got["encoder.input.weight"] == 1
    assert got["decoder.blocks.0.linear.weight"] == 0.25


@pytest.mark.parametrize("part", ["decoder.block", "reader", ""])
def test_a_rate_of_a_part_that_is_none(part):
    """Half a name, unknown, empty; a frozen part is no mistake."""
    model = toy()
    model["encoder"].requires_grad_(False)
    parameter_groups(model, 1.0, 0.0, GroupRule(lr_of={"encoder": 0.5}))
    with pytest.raises(UserError, match=f"optim_conf.lr_of: '{part}' matches no parameter"):
        parameter_groups(model, 1.0, 0.0, GroupRule(lr_of={part: 0.5}))


def test_layer_wise_rates_by_hand():
    """Rate 0.9, three blocks, base 1e-5; as the published table for 18 blocks, made small."""
    model = toy()
    got = rates(model, parameter_groups(model, 1e-5, 0.005, GroupRule(layer_decay=0.9)))
    lr = {name: value[0] for name, value in got.items()}
    assert lr["decoder.blocks.2.linear.weight"] == pytest.approx(1e-5)
    assert lr["decoder.blocks.1.linear.weight"] == pytest.approx(0.9e-5)
    assert lr["decoder.blocks.0.norm.bias"] == pytest.approx(0.81e-5)
    assert lr["decoder.embed.weight"] == pytest.approx(0.729e-5)
    assert lr["decoder.head.weight"] == lr["decoder.norm.weight"] == lr["decoder.embed.weight"]
    assert lr["decoder.adapters.0.linear.weight"] == lr["ctc.weight"] == lr["encoder.input.weight"] == 1e-5


def test_published_rates_of_18_blocks():
    """Block 0, 8, 17, and embedding, for 1e-5 (the released code's values)."""
    rule = GroupRule(layer_decay=0.9)
    for name, wanted in [
        ("decoder.blocks.0.attn.qkv.weight", 1.668e-6),
        ("decoder.blocks.8.attn.qkv.weight", 3.874e-6),
        ("decoder.blocks.17.attn.qkv.weight", 1e-5),
        ("decoder.embed.weight", 1.501e-6),
        ("decoder.head.weight", 1.501e-6),
    ]:
        assert 1e-5 * rule.factor(name, 18) == pytest.approx(wanted, rel=5e-4)


def test_the_other_direction_slows_the_upper_blocks():
    """Block 0 and the embedding at the full rate, block 2 at 0.81, the head below all."""
    rule = GroupRule(layer_decay=0.9, layer_decay_from="bottom")
    model = toy()
    got = {name: value[0] for name, value in rates(model, parameter_groups(model, 1.0, 0.0, rule)).items()}
    assert [got[f"decoder.blocks.{i}.linear.weight"] for i in range(3)] == pytest.approx([1.0, 0.9, 0.81])
    assert got["decoder.embed.weight"] == got["decoder.adapters.2.linear.weight"] == 1.0
    assert got["decoder.head.weight"] == got["decoder.norm.weight"] == pytest.approx(0.729)
    base = GroupRule(layer_decay=0.9, layer_decay_from="bottom", llrd_head="base")
    assert base.factor("decoder.head.weight", 3) == 1.0


def test_head_and_last_norm_may_learn_at_the_full_rate():
    """llrd_head: base leaves the embedding lowest."""
    model = toy()
    got = rates(model, parameter_groups(model, 1.0, 0.0, GroupRule(layer_decay=0.5, llrd_head="base")))
    assert got["decoder.head.weight"][0] == got["decoder.norm.weight"][0] == 1.0
    assert got["decoder.embed.weight"][0] == 0.125


def test_no_decay_for_norms_biases_and_embeddings():
    """Matrices and convolutions decay."""
    model = toy()
    decay = {name: value[1] for name, value in rates(model, parameter_groups(model, 1.0, 0.1, GroupRule())).items()}
    for name, value in decay.items():
        free = "norm" in name or name.endswith("bias") or "embed" in name
        assert value == (0.0 if free else 0.1), name


def test_the_released_code_decays_the_embedding_and_the_last_norm():
    """Its rule: 0 if the name contains "norm" or "bias", where the last norm is called ln_f and the embedding wte."""
    model = toy()
    got = rates(model, parameter_groups(model, 1.0, 0.1, GroupRule(decayed="released")))
    decayed = {name for name, value in got.items() if value[1]}
    plain = {name for name, value in rates(model, parameter_groups(model, 1.0, 0.1, GroupRule())).items() if value[1]}
    assert decayed - plain == {"decoder.embed.weight", "decoder.norm.weight"} and plain <= decayed


def test_muon_takes_matrices_of_repeated_layers_only():
    """Not the head, the CTC layer, the convolution or the embedding."""
    model = toy()
    got = rates(model, parameter_groups(model, 3e-3, 0.1, GroupRule(muon_lr=0.02, layer_decay=0.5), muon=True))
    chosen = {name for name, value in got.items() if value[2]}
    assert chosen == {
        "encoder.blocks.0.linear.weight",
        *(f"decoder.{part}.{i}.linear.weight" for part in ("blocks", "adapters") for i in range(3)),
    }
    assert got["decoder.blocks.0.linear.weight"] == (0.005, 0.0, True)
    assert got["decoder.adapters.0.linear.weight"] == (0.02, 0.0, True)
    assert got["ctc.weight"] == (3e-3, 0.1, False)


def test_espnet_encoder_layers_count_as_repeated_layers():
    """`encoders.3.` is ESPnet's name for them; its subsampling's `embed.out.0` is no repeated layer."""
    model = nn.ModuleDict(
        {
            "encoder": nn.ModuleDict(
                {
                    "encoders": nn.ModuleList([nn.Linear(3, 3)]),
                    "embed": nn.ModuleDict({"out": nn.Sequential(nn.Linear(3, 3))}),
                }
            )
        }
    )
    got = rates(model, parameter_groups(model, 1.0, 0.1, GroupRule(), muon=True))
    assert got["encoder.encoders.0.weight"] == (6.0, 0.0, True)
    assert got["encoder.embed.out.0.weight"] == (1.0, 0.1, False)


def test_first_group_has_the_full_rate_and_the_order_is_stable():
    """The logs' lr0 is the one in the YAML; a saved optimiser finds its groups again."""
    first, second = (
        [(g["lr"], g["weight_decay"], len(g["params"])) for g in parameter_groups(toy(), 1.0, 0.1, GroupRule(0.9))]
        for _ in range(2)
    )
    assert first == second
    assert first[0][0] == 1.0
    assert [row[0] for row in first] == sorted((row[0] for row in first), reverse=True)


def test_build_optimizer_passes_the_other_keys_on():
    """betas reach the optimiser, layer_decay the groups; lr defaults to the optimiser's own."""
    optimizer = build_optimizer(torch.optim.AdamW, {"betas": [0.9, 0.98], "layer_decay": 0.9}, toy())
    assert tuple(optimizer.param_groups[0]["betas"]) == (0.9, 0.98)
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert isinstance(build_optimizer(Muon, {"lr": 0.01, "muon_lr": 0.02}, toy()), Muon)


@pytest.mark.parametrize(
    ("optim", "conf", "message"),
    [
        (torch.optim.AdamW, {"lrr": 1.0}, "unknown key lrr for AdamW; it knows .*layer_decay"),
        (torch.optim.AdamW, {"muon_lr": 1.0}, "unknown key muon_lr for AdamW"),
        (Muon, {"layer_decay": 1.5}, "layer_decay: expected a rate in"),
        (Muon, {"llrd_head": "top"}, "'top' is unknown; expected lowest or base"),
        (Muon, {"lr_of": {"decoder.blocks": 0}}, "lr_of.decoder.blocks: 0 is no factor of a rate"),
        (Muon, {"lr_of": {"decoder": {"head": "slow"}}}, "lr_of.decoder.head: 'slow' is no factor"),
        (Muon, {"layer_decay_from": "middle"}, "'middle' is unknown; expected top or bottom"),
        (Muon, {"decayed": "all"}, "optim_conf.decayed: 'all' is unknown; expected matrices or released"),
    ],
)
def test_wrong_settings_are_named(optim, conf, message):
    """Each names the key and what was expected."""
    with pytest.raises(UserError, match=message):
        build_optimizer(optim, conf, toy())


def test_nothing_to_train_is_an_error():
    """Everything frozen."""
    model = toy().requires_grad_(False)
    with pytest.raises(UserError, match="leaves nothing to train"):
        parameter_groups(model, 1.0, 0.1, GroupRule())


def test_inventory_counts_by_part():
    """The decoder's parts apart, trainable and frozen."""
    model = toy()
    model["decoder"]["embed"].requires_grad_(False)
    counts = {part: (trainable, frozen) for part, trainable, frozen in inventory(model)}
    assert counts["decoder.embed"] == (0, 20)
    assert counts["ctc"] == (30, 0)
    assert sum(map(sum, counts.values())) == sum(p.numel() for p in model.parameters())

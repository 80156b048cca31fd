"""What a program's text says of its collectives, counted by hand; and what a datasheet allows."""

import pytest

from dmfer_jax import compiled
from dmfer_jax.chips import CHIPS, SLICES, find_topology
from dmfer_jax.compiled import Traffic, longest_chain, read_collectives
from dmfer_jax.errors import UserError

# The second all-reduce carries two sums: one needs the first all-reduce, the other does not.
COMBINED = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

ENTRY %main.1_spmd (a: f32[8,128], b: bf16[16]) -> (f32[8,128], bf16[16]) {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %b = bf16[16]{0:T(128)(2,1)} parameter(1)
  %all-reduce.1 = f32[8,128]{1,0:T(8,128)S(1)} all-reduce(%a), channel_id=1, to_apply=%add
  %square = f32[8,128]{1,0:T(8,128)} multiply(%all-reduce.1, %all-reduce.1)
  %all-reduce.2 = (f32[8,128]{1,0:T(8,128)}, /*index=1*/bf16[16]{0}) all-reduce(%square, \
/*index=1*/%b), channel_id=2, to_apply=%add, control-predecessors={%all-reduce.1}
  %deep = f32[8,128]{1,0:T(8,128)} get-tuple-element(%all-reduce.2), index=0
  %shallow = bf16[16]{0} get-tuple-element(%all-reduce.2), index=1
  ROOT %result = (f32[8,128]{1,0}, bf16[16]{0}) tuple(%deep, %shallow)
}
"""


def entry(*lines: str) -> str:
    """A program of these instructions, behind one parameter %p."""
    body = "\n".join(f"  {line}" for line in ("%p = f32[4]{0} parameter(0)", *lines))
    return f"HloModule m\n\nENTRY %main (p: f32[4]) -> f32[4] {{\n{body}\n}}\n"


def test_a_combined_all_reduce_counts_once_with_all_its_bytes():
    # 8 * 128 * 4 bytes, twice, and 16 * 2.
    assert read_collectives(COMBINED) == {"all-reduce": Traffic(2, 4096 + 4096 + 32)}


def test_a_program_without_exchange_has_no_collectives():
    assert read_collectives(entry("ROOT %y = f32[4]{0} add(%p, %p)")) == {}
    assert longest_chain(entry("ROOT %y = f32[4]{0} add(%p, %p)")) == 0


def test_asynchronous_collectives_count_once_and_by_their_result():
    text = entry(
        "%r = f32[4]{0} all-reduce-start(%p), to_apply=%add",
        "%rd = f32[4]{0} all-reduce-done(%r)",
        "%g = (f32[4]{0:T(128)}, f32[32]{0:T(128)}) all-gather-start(%rd), dimensions={0}",
        "%gd = f32[32]{0} all-gather-done(%g)",
        "%c = (f32[32]{0}, f32[32]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%gd)",
        "%cd = f32[32]{0} collective-permute-done(%c)",
        "ROOT %s = f32[4]{0} reduce-scatter(%cd), dimensions={0}, to_apply=%add",
    )
    assert read_collectives(text) == {
        "all-reduce": Traffic(1, 16),
        "all-gather": Traffic(1, 128),
        "collective-permute": Traffic(1, 128),
        "reduce-scatter": Traffic(1, 16),
    }
    assert longest_chain(text) == 4


def test_a_combined_start_counts_its_results_and_not_its_operands():
    text = entry(
        "%g = ((f32[4]{0}, bf16[2,2]{1,0:T(8,128)(2,1)}), (f32[32]{0}, bf16[16,2]{1,0})) "
        "all-gather-start(%p, %p), dimensions={0}"
    )
    assert read_collectives(text) == {"all-gather": Traffic(1, 32 * 4 + 32 * 2)}


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("pred[3]{0}", 3),
        ("s4[3]{0}", 2),  # half bytes, and whole ones in the end
        ("f8e4m3fn[5]{0}", 5),
        ("c64[2]{0}", 16),
        ("f32[]", 4),
        ("f32[0]{0}", 0),
    ],
)
def test_bytes_follow_from_the_type(shape: str, size: int):
    text = entry(f"%g = {shape} all-gather(%p), dimensions={{0}}")
    assert read_collectives(text) == {"all-gather": Traffic(1, size)}


def test_a_collective_follows_from_another_only_by_its_own_data():
    # %deep follows from both all-reduces, %shallow from the second alone; so does a third of each.
    assert longest_chain(COMBINED) == 2
    third = "  %third = {} all-reduce({}), to_apply=%add\n  ROOT"
    after_deep = COMBINED.replace("  ROOT %result", third.format("f32[8,128]{1,0}", "%deep"))
    after_shallow = COMBINED.replace("  ROOT %result", third.format("bf16[16]{0}", "%shallow"))
    assert (longest_chain(after_deep), longest_chain(after_shallow)) == (3, 2)


def test_a_call_that_hides_a_collective_counts_as_one():
    text = entry(
        "%a = f32[4]{0} all-reduce(%p), to_apply=%add",
        "%s = f32[4]{0} async-start(%a), calls=%hidden",
        "%d = f32[4]{0} async-done(%s), calls=%hidden",
        "ROOT %y = f32[4]{0} fusion(%d), calls=%plain",
    )
    hidden = "%hidden (x: f32[4]) -> f32[4] {\n  ROOT %z = f32[4]{0} all-to-all(%x)\n}\n\n"
    plain = "%plain (x: f32[4]) -> f32[4] {\n  ROOT %z = f32[4]{0} negate(%x)\n}\n\n"
    assert longest_chain(hidden + plain + text) == 2


def program(**fields: object) -> compiled.Program:
    """A program that does nothing but what the fields say."""
    nothing = compiled.Program(0, 0, 0, 0, 0, 0.0, 0.0, {}, 0)
    return nothing._replace(**fields)


def test_donated_memory_counts_once():
    found = program(arguments=100, outputs=90, aliased=80, temporaries=7, code=3)
    assert found.memory == 120


def test_bounds_are_the_datasheets_rates():
    found = program(
        flops=197e12,
        bytes_moved=2 * 819e9,
        collectives={"all-reduce": Traffic(3, 200), "all-gather": Traffic(1, 400)},
    )
    bounds = compiled.bounds(found, find_topology("v5e:2x2"))
    assert (bounds.arithmetic, bounds.bandwidth) == (1.0, 2.0)
    # Of 4 chips each sends 2 * 200 * 3/4 bytes and 400 * 3/4, at 200e9 bytes a second.
    assert bounds.interconnect == pytest.approx(600 / 200e9)
    assert bounds.seconds == 2.0


def test_a_chip_alone_sends_nothing():
    found = program(collectives={"all-reduce": Traffic(1, 200)})
    assert compiled.bounds(found, find_topology("v5e:1x1")).interconnect == 0


def test_the_faster_chip_has_the_lower_bounds():
    found = program(flops=1e12, bytes_moved=1e9, collectives={"all-reduce": Traffic(1, 1000)})
    old, new = (compiled.bounds(found, find_topology(f"{chip}:2x4")) for chip in CHIPS)
    assert all(after < before for before, after in zip(old, new, strict=True))


def test_a_slice_has_the_chips_of_its_shape():
    for shape, chips in SLICES.items():
        rows, columns = map(int, shape.split("x"))
        assert rows * columns == chips
        assert find_topology(f"v6e:{shape}") == (f"v6e:{shape}", CHIPS["v6e"], chips)


@pytest.mark.parametrize("name", ["", "v5e", "v5e:", "v5e:0x2", "v5e:32x32", "v9:2x4", "2x4"])
def test_another_topology_is_refused_with_those_there_are(name: str):
    with pytest.raises(UserError, match=f"no TPU topology '{name}'.*v5e, v6e.*2x4.*16x16"):
        find_topology(name)

"""Features are read before the first step that trains their tower, and never after it."""

import pickle

from theworld.data.features.steps import LIVE, CachedSteps


def test_steps_before_and_validations_after():
    steps = CachedSteps({"image_features": 2, "world_latents": 7})
    both, world, none = {"image_features", "world_latents"}, {"world_latents"}, set()
    assert [steps.before(step) for step in (0, 1, 2, 6, 7, 8)] == [both, both, world, world, none, none]
    # After two steps the tower is still the one that the cache was made with; the third step changes it.
    assert [steps.after(done).before(0) for done in (0, 2, 3, 7, 8)] == [both, both, world, world, none]
    assert steps.after(7).before(10**9) == world
    assert pickle.loads(pickle.dumps(steps)) == steps
    assert LIVE.before(0) == LIVE.after(0).before(0) == none

"""Types for a budget of bytes: the best file of a given size, or for a given card.

    checkpoint = open_source("org/model")
    request = Request(recipe.of("q4_0", method="gptq"), ("gguf",), calibration=basis.calibration)
    source = choose.Source(checkpoint, request, goal.Bits(4.6), sensitivities, {})
    decision = run.decide(source)
    done = run.carry_out(decision, run.Work(folder, basis, (), Options(threads), check.held_out()))

The body of the recipe is not looked at; its method and whatever it says of single tensors is. `choose.space` is made
once for many goals. `decide` writes nothing: what it returns has the plans, the predicted losses and the bytes left.
"""

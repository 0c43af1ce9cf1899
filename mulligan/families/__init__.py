"""One file a family: ``make(variant, effort, **options)`` gives a recipe that fits it. ``recipe`` is what they share."""

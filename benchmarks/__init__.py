"""What is trained on: one module a data set, with its data, tasks and how to show them."""

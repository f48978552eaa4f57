"""Data parallel within a run: several processes that together compute what one does with the joined batch.

Each process (rank) holds the whole method and a share of every batch's rows, and minimises its loss times its share of
the rows; gradients are summed. So a mean over rows is the joined batch's mean, and a loss computed by every rank from
gathered rows counts once. What follows a sum, as batch norm does, is made of all ranks' sums.
"""

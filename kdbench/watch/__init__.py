"""What is seen of training as it goes: a screen, lines in a pipe, a log, curves, and other people's trackers.

``words`` says where work stands, ``screen`` draws it on a terminal and ``lines`` prints it into a pipe; ``files``
writes log and curves of a run, ``trackers`` hands its points to the user's ``libraries``. No record depends on any.
"""

"""Angles on the detector and on the sky."""

from lyot.algorithms import geometry


def test_angles_run_from_the_y_axis_towards_negative_x():
    angle = geometry.angle_map((11, 11), (5, 5))
    assert angle[9, 5] == 0
    assert angle[5, 0] == 90
    assert angle[0, 5] == 180
    assert angle[5, 9] == 270


def test_position_angle_of_the_y_axis_adds_the_aperture_angle():
    # HD 106906: ROLL_REF 64.8109, V3I_YANG 4.8354, PA_APER 69.6463 in the header.
    angle = geometry.position_angle_of_y(64.81087393012638, 4.83544897, -1)
    assert abs(angle - 69.64632290012638) < 1e-9

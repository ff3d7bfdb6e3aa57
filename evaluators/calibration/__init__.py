"""How far a judge can be believed: labels of people, agreement, corrected means, drift."""

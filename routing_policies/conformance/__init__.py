"""What every implementation of the gateway side must agree on, in whichever language it is."""

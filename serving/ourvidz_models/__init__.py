"""What every engine process shares that runs torch: devices and types, rules of loading, what to do when memory runs out."""

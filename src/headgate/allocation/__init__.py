"""Pure: demand + capacity -> allocation -> ordered plan; routing and admission. No clock, no I/O."""

"""callback-core"""

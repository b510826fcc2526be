"""trainer-torch"""
